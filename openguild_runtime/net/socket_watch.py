"""Watches which sockets are readable or writable.

On Linux, one epoll(7) instance serves all sockets, and the loop watches its descriptor. An idle socket then takes one place
in a list, where the loop would need about 600 bytes. A broken socket is reported for as long as it is watched; uvloop
would report it only once.
"""

from __future__ import annotations

import asyncio
import select
import sys
from collections.abc import Iterable
from typing import Protocol

import structlog

from openguild_proto.limits import TURN_SECS
from openguild_proto.policy.round_robin import RoundRobin

READ = 1  # EPOLLIN
WRITE = 4  # EPOLLOUT
AT_A_TIME = 1_024  # ready sockets in one epoll_wait(2); they are served round-robin by address

log = structlog.get_logger("openguild.peer")


class Watched(Protocol):
    """The callbacks of a watched socket."""

    @property
    def turns_of(self) -> str:
        """The address by which ready sockets are served round-robin."""

    def ready(self, events: int) -> None:
        """Handle `events`: READ, WRITE or both. A socket that has ended or broken is ready for both."""


class SocketWatch(Protocol):
    """Calls sockets back when they are ready, until they are no longer watched."""

    def want(self, descriptor: int, watched: Watched, events: int) -> None:
        """Report these `events` from now on, or none for 0. Raises OSError if the kernel is out of memory."""

    def close(self) -> None:
        """Stop reporting. May be called again."""


class LoopWatch:
    """Lets the loop watch each socket, on systems without epoll."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def want(self, descriptor: int, watched: Watched, events: int) -> None:
        """Implement `SocketWatch`."""
        if events & READ:
            self._loop.add_reader(descriptor, watched.ready, READ)
        else:
            self._loop.remove_reader(descriptor)
        if events & WRITE:
            self._loop.add_writer(descriptor, watched.ready, WRITE)
        else:
            self._loop.remove_writer(descriptor)

    def close(self) -> None:
        """Implement `SocketWatch`: sockets are unwatched one by one when they are closed."""


if sys.platform == "linux":
    _BROKEN = select.EPOLLERR | select.EPOLLHUP

    class EpollWatch:
        """One epoll instance for all sockets, itself watched by the loop."""

        def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
            self._loop = loop
            self._epoll = select.epoll()
            self._watched: list[Watched | None] = []  # by descriptor
            self._found: dict[int, int] = {}  # by descriptor: its events, until its turn
            self._turns: RoundRobin[int] = RoundRobin()  # the descriptors in `_found`
            loop.add_reader(self._epoll.fileno(), self._some_are_ready)

        def want(self, descriptor: int, watched: Watched, events: int) -> None:
            """Implement `SocketWatch`."""
            if self._epoll.closed:
                return
            known = self._watched
            if descriptor >= len(known):
                known.extend([None] * (descriptor + 1 - len(known)))
            if known[descriptor] is None:
                if events:
                    self._epoll.register(descriptor, events)
                    known[descriptor] = watched
            elif events:
                self._epoll.modify(descriptor, events)
            else:
                known[descriptor] = None
                self._epoll.unregister(descriptor)

        def _some_are_ready(self) -> None:
            clock, ready = self._loop.time, self._epoll.poll(0, AT_A_TIME)
            until = clock() + TURN_SECS
            if not self._found:  # usually there is time for all
                for at, (descriptor, events) in enumerate(ready, start=1):
                    self._tell(descriptor, events)
                    if clock() >= until:
                        self._have_wait(ready[at:])
                        return
                return
            self._have_wait(ready)
            while (turn := self._turns.take()) is not None:
                self._tell(turn, self._found.pop(turn))
                if clock() >= until:
                    return  # the epoll stays readable, so the loop calls again

        def _have_wait(self, ready: Iterable[tuple[int, int]]) -> None:
            """Queue these sockets for their turns."""
            for descriptor, events in ready:
                watched = self._watched[descriptor]
                if watched is not None and descriptor not in self._found:
                    self._turns.add(watched.turns_of, descriptor)
                    self._found[descriptor] = events

        def _tell(self, descriptor: int, events: int) -> None:
            watched = self._watched[descriptor]
            if watched is not None:  # else it was closed; a new socket with its descriptor finds nothing to read
                try:
                    watched.ready(READ | WRITE if events & _BROKEN else events)
                except Exception:  # else the sockets after it would have to wait
                    log.exception("a socket could not be served")

        def close(self) -> None:
            """Implement `SocketWatch`."""
            if not self._epoll.closed:
                self._loop.remove_reader(self._epoll.fileno())
                self._epoll.close()


def make_watch(loop: asyncio.AbstractEventLoop) -> SocketWatch:
    """Return the best watch that this system supports."""
    if sys.platform != "linux":
        return LoopWatch(loop)
    return EpollWatch(loop)
