"""The interface of a store and its guarantees. One test suite runs on all stores (PROTOCOL 11.4.5)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TypeVar

import msgspec

from openguild_proto.effects import StorageEffect
from openguild_proto.effects.process import StorageHealth
from openguild_proto.policy.standbys import StandbyStats
from openguild_proto.records import ControlRecord, StoredEvent

T = TypeVar("T")


class StorageStats(msgspec.Struct, frozen=True, gc=False):
    """A snapshot for the metrics. Values that do not apply to a store are 0."""

    pool_size: int = 0  # open connections
    pool_idle: int = 0  # of these, idle ones
    queue_events: int = 0  # queued appends
    # messages not yet in the search index, as of the last sweep over all logs, about once a minute
    unindexed: int = 0
    shared_free: int = 1  # reads that could begin now; 1 if nothing limits them
    standbys: tuple[StandbyStats, ...] = ()  # in the order of the configuration


class StorageHandler:
    """Receives the notices of a store, on the event loop. This base class ignores them."""

    def control_stored(self, record: ControlRecord) -> None:
        """Handle a control record that this store has committed, in log order within an effect.

        Records of different effects may arrive in any order.
        """

    def log_grew(self, event: StoredEvent) -> None:
        """Handle an event of a guild or user log that this store has committed, in log order within an effect."""

    def batch_committed(self, events: int, seconds: float) -> None:
        """Note a commit of appends: the number of events and the duration."""

    def storage_failed(self, writes: bool, cause: str) -> None:
        """Note a failed effect. `cause` is a name in observability/database_causes.py."""


class Storage(ABC):
    """Performs storage effects. Each is atomic and, once `perform` has returned, durable if the store is.

    Every method that reads or writes raises `StorageUnavailable` (the store cannot be reached, or the outcome is unknown)
    and its subclass `Overloaded` (a bound is reached, nothing was done), without texts of the driver. `perform` also raises
    `Refusal` for a change that its author may not make; nothing was done then.
    """

    def __init__(self) -> None:
        self.handler: StorageHandler = StorageHandler()

    def attach(self, handler: StorageHandler) -> None:
        """Set the handler, once, before the first effect."""
        self.handler = handler

    @abstractmethod
    async def start(self) -> None:
        """Wait until the store can be used, and log why it cannot be meanwhile."""

    @abstractmethod
    async def aclose(self) -> None:
        """Finish running effects within a time limit, refuse queued ones, and release all resources. Idempotent."""

    def cut(self) -> None:  # noqa: B027 - memory has nothing to cancel
        """Cancel running effects, when `aclose` takes too long."""

    @abstractmethod
    async def perform(self, effect: StorageEffect[T]) -> T:
        """Perform one effect. Cancelling the caller does not undo it."""

    @abstractmethod
    async def check(self) -> StorageHealth:
        """Check the store for `/ready`, within a time limit. An unreachable store is a result, not an exception."""

    async def wall_ms(self) -> float | None:
        """Return the store's clock, which all replicas share, in UTC milliseconds, or None if it has none."""
        return None

    @abstractmethod
    def stats(self) -> StorageStats:
        """Return the statistics, without I/O."""
