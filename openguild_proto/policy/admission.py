"""Which connection is let in, and which one makes room for it."""

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
    """Why a connection is not let in; the value is the text for the operator, None where there is nothing to tell."""

    DRAINING = None
    ADDRESS_FULL = "an address holds all that one may have (websocket.max_connections_per_address)"
    SERVER_FULL = "the server has as many as it may (websocket.max_connections, the limit of open files)"


class Admission(Generic[T]):
    """The connections of one process, in the order of their coming; `T` is a connection.

    A trusted proxy brings the connections of many clients, so it is not held to what one address may have.
    """

    def __init__(self, max_per_address: int, max_connections: int = 0) -> None:
        self.max_connections = max_connections
        self.draining = False  # nothing is let in any more
        self.connections: dict[T, str] = {}  # with the key that their address counts by
        self._requests: dict[T, None] = {}  # those that are no streams
        self._quota = Quota(max_per_address)

    def check(self, address: str, *, is_trusted: bool) -> Refused | None:
        """None: let it in. SERVER_FULL is final only when `to_shed` finds none that can end."""
        if self.draining:
            return Refused.DRAINING
        if not is_trusted and not self._quota.has_room(limit_key(address)):
            return Refused.ADDRESS_FULL
        return None if len(self.connections) < self.max_connections else Refused.SERVER_FULL

    def to_shed(self, can_end: Callable[[T], bool]) -> T | None:
        """The oldest connection without a stream that `can_end`, among the first `SHED_LOOKS`: it makes room."""
        return next(filter(can_end, islice(self._requests, SHED_LOOKS)), None)

    def opened(self, connection: T, address: str) -> None:
        """It was let in."""
        key = limit_key(address)
        self.connections[connection] = key
        self._requests[connection] = None
        self._quota.take(key)

    def became_stream(self, connection: T) -> None:
        """It is never shed from now on."""
        self._requests.pop(connection, None)

    def closed(self, connection: T) -> bool:
        """It has ended. False: it was not known, or has ended before."""
        key = self.connections.pop(connection, None)
        if key is None:
            return False
        self._requests.pop(connection, None)
        self._quota.give_back(key)
        return True

    def __len__(self) -> int:
        return len(self.connections)
