"""Decides which connections are accepted, and which one is closed to make room."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from itertools import islice
from typing import Generic, TypeVar

from openguild_proto.limits import SHED_LOOKS
from openguild_proto.policy.addresses import limit_key
from openguild_proto.policy.quotas import Quota

T = TypeVar("T")


class Refused(Enum):
    """Why a connection is not accepted. The value is the text of the log line; with None, nothing is logged."""

    DRAINING = None
    ADDRESS_FULL = "an address has as many as one may have (websocket.max_connections_per_address)"
    SERVER_FULL = "the server has as many as it may (websocket.max_connections, the limit of open files)"


class Admission(Generic[T]):
    """The connections of one process, oldest first; `T` is a connection.

    The limit per address does not apply to trusted proxies, which carry the requests of many clients.
    """

    def __init__(self, max_per_address: int, max_connections: int = 0) -> None:
        self.max_connections = max_connections
        self.draining = False  # no connection is accepted any more
        self.connections: dict[T, str] = {}  # with the limit key of its address
        self._requests: dict[T, None] = {}  # connections that are not streams, oldest first
        self._quota = Quota(max_per_address)

    def check(self, address: str, *, is_trusted: bool) -> Refused | None:
        """Return why a connection from `address` is refused; None: accept it.

        SERVER_FULL is final only if `to_shed` finds no connection that can be closed.
        """
        if self.draining:
            return Refused.DRAINING
        if not is_trusted and not self._quota.has_room(limit_key(address)):
            return Refused.ADDRESS_FULL
        return None if len(self.connections) < self.max_connections else Refused.SERVER_FULL

    def to_shed(self, can_end: Callable[[T], bool]) -> T | None:
        """Return the oldest connection without a stream that `can_end`, among the first `SHED_LOOKS`; None: there is none."""
        return next(filter(can_end, islice(self._requests, SHED_LOOKS)), None)

    def opened(self, connection: T, address: str) -> None:
        """Add an accepted connection."""
        key = limit_key(address)
        self.connections[connection] = key
        self._requests[connection] = None
        self._quota.take(key)

    def became_stream(self, connection: T) -> None:
        """Note that the connection is a stream now: it is never shed."""
        self._requests.pop(connection, None)

    def closed(self, connection: T) -> bool:
        """Remove a connection that has ended. False: it was not known."""
        key = self.connections.pop(connection, None)
        if key is None:
            return False
        self._requests.pop(connection, None)
        self._quota.give_back(key)
        return True

    def __len__(self) -> int:
        return len(self.connections)
