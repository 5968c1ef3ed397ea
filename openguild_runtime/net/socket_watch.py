"""Watches which sockets are ready to be read or written.

On Linux one epoll(7) of our own serves all sockets, and the loop watches that. An idle socket is one place in a list then,
where the loop would keep about 600 bytes. A broken socket is reported for as long as it is watched:
libuv stops after the first report, which uvloop passes on.
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
AT_A_TIME = 1_024  # ready sockets that the kernel names at once: of these the addresses have turns

log = structlog.get_logger("openguild.peer")


class Watched(Protocol):
    """The callbacks of a watched socket."""

    @property
    def turns_of(self) -> str:
        """Of whose address it is: sockets of different ones are told by turns."""

    def ready(self, events: int) -> None:
        """`events`: READ, WRITE or both. A socket that has ended or broken counts as ready for what is wanted."""


class SocketWatch(Protocol):
    """Calls sockets back when they are ready, until they are no longer watched."""

    def want(self, descriptor: int, watched: Watched, events: int) -> None:
        """From now on report these `events`; 0: none. Raises OSError where the kernel has no room."""

    def close(self) -> None:
        """Report nothing more; safe to repeat."""


class LoopWatch:
    """The loop itself watches each socket, where there is no epoll."""

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
        """Implement `SocketWatch`: each socket stops by itself."""


if sys.platform == "linux":
    _BROKEN = select.EPOLLERR | select.EPOLLHUP

    class EpollWatch:
        """An epoll of our own under the loop."""

        def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
            self._loop = loop
            self._epoll = select.epoll()
            self._watched: list[Watched | None] = []  # by descriptor
            self._found: dict[int, int] = {}  # by descriptor: how it was ready; it has had no turn yet
            self._turns: RoundRobin[int] = RoundRobin()  # these descriptors
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
            if not self._found:  # mostly there is time for all
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
                    return  # the epoll is still ready, and so the loop calls again

        def _have_wait(self, ready: Iterable[tuple[int, int]]) -> None:
            """Have these wait for their turns."""
            for descriptor, events in ready:
                watched = self._watched[descriptor]
                if watched is not None and descriptor not in self._found:
                    self._turns.add(watched.turns_of, descriptor)
                    self._found[descriptor] = events

        def _tell(self, descriptor: int, events: int) -> None:
            watched = self._watched[descriptor]
            if watched is not None:  # else it has ended; a socket that has its descriptor now finds nothing to do
                try:
                    watched.ready(READ | WRITE if events & _BROKEN else events)
                except Exception:  # contained, as by the loop: those behind it would wait for as long as it fails
                    log.exception("a socket could not be served")

        def close(self) -> None:
            """Implement `SocketWatch`."""
            if not self._epoll.closed:
                self._loop.remove_reader(self._epoll.fileno())
                self._epoll.close()


def make_watch(loop: asyncio.AbstractEventLoop) -> SocketWatch:
    """The best that this system has."""
    if sys.platform != "linux":
        return LoopWatch(loop)
    return EpollWatch(loop)
