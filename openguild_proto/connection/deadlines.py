"""The named deadlines of a connection, in monotonic seconds.

Their lengths are configured (`http.*` and `websocket.*` in settings/sections.py) or fixed (`Limits` in limits.py).
"""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum


class Deadline(StrEnum):
    """What must have happened by the deadline."""

    HEAD = "head"  # a request's head has arrived (RFC 9112 9.5)
    BODY = "body"  # a request's body has arrived
    IDLE = "idle"  # the next request has begun
    WRITE = "write"  # the peer has taken some of the queued bytes
    PING = "ping"  # the next ping is due, an interval after the last whole frame
    FRAME = "frame"  # a frame that has begun is complete; no pong can come inside it (RFC 6455 5.4)
    CLOSE = "close"  # the peer has answered our close frame (RFC 6455 7.1.1)
    LIFETIME = "lifetime"  # the credentials of the connection expire
    LINGER = "linger"  # the peer has shut its side after ours (RFC 9112 9.6)


class Deadlines:
    """The deadlines that are set. `next` only reads."""

    __slots__ = ("_times",)

    def __init__(self) -> None:
        self._times: dict[Deadline, float] = {}

    def set(self, name: Deadline, at: float) -> None:
        """Set or move the deadline `name` to `at`, monotonic seconds."""
        self._times[name] = at

    def clear(self, name: Deadline) -> None:
        """Stop this deadline, if it is set."""
        self._times.pop(name, None)

    def clear_all_but(self, kept: Collection[Deadline]) -> None:
        """Stop every deadline except `kept`, which stay as they are."""
        for name in [name for name in self._times if name not in kept]:
            del self._times[name]

    def __contains__(self, name: Deadline) -> bool:
        return name in self._times

    def next(self) -> float | None:
        """Return the earliest deadline; None: none is set."""
        return min(self._times.values(), default=None)

    def take_expired(self, now: float) -> Deadline | None:
        """Remove and return the earliest deadline that has passed; None: none has.

        Returns one at a time, because acting on it may stop others.
        """
        name = min(self._times, key=self._times.__getitem__, default=None)
        if name is None or self._times[name] > now:
            return None
        del self._times[name]
        return name

    def __getitem__(self, name: Deadline) -> float:
        """Return the time of a deadline. Raises KeyError if it is not set."""
        return self._times[name]
