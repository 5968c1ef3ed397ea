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
    """Why a connection is refused. The value is the text for the operator; None: not logged."""

    DRAINING = None
    ADDRESS_FULL = "an address has reached its limit (websocket.max_connections_per_address)"
    SERVER_FULL = "the server has reached its limit (websocket.max_connections or the limit of open files)"


class Admission(Generic[T]):
    """The connections of one process, oldest first. `T` is a connection.

    The limit per address does not apply to trusted proxies, which forward the connections of many clients.
    """

    def __init__(self, max_per_address: int, max_connections: int = 0) -> None:
        self.max_connections = max_connections
        self.draining = False  # True: no connection is accepted
        self.connections: dict[T, str] = {}  # value: the limit key of its address
        self._requests: dict[T, None] = {}  # connections that are not streams, oldest first
        self._quota = Quota(max_per_address)

    def check(self, address: str, *, is_trusted: bool) -> Refused | None:
        """Return why a connection from `address` is refused, or None to accept it.

        SERVER_FULL is final only if `to_shed` returns no connection to close.
        """
        if self.draining:
            return Refused.DRAINING
        if not is_trusted and not self._quota.has_room(limit_key(address)):
            return Refused.ADDRESS_FULL
        return None if len(self.connections) < self.max_connections else Refused.SERVER_FULL

    def to_shed(self, can_end: Callable[[T], bool]) -> T | None:
        """Return the oldest connection without a stream for which `can_end` is true, among the first `SHED_LOOKS`, or None."""
        return next(filter(can_end, islice(self._requests, SHED_LOOKS)), None)

    def opened(self, connection: T, address: str) -> None:
        """Add an accepted connection."""
        key = limit_key(address)
        self.connections[connection] = key
        self._requests[connection] = None
        self._quota.take(key)

    def became_stream(self, connection: T) -> None:
        """Record that the connection is now a stream, which is never shed."""
        self._requests.pop(connection, None)

    def closed(self, connection: T) -> bool:
        """Remove a closed connection. Return False if it was unknown."""
        key = self.connections.pop(connection, None)
        if key is None:
            return False
        self._requests.pop(connection, None)
        self._quota.give_back(key)
        return True

    def __len__(self) -> int:
        return len(self.connections)
