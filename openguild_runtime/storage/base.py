"""What a store guarantees, whichever it is. One contract suite runs on all of them (PROTOCOL 11.4.5)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TypeVar

import msgspec

from openguild_proto.effects import StorageEffect
from openguild_proto.records import ControlRecord
from openguild_runtime.observability.database_causes import CAUSES

T = TypeVar("T")


class StorageHealth(msgspec.Struct, frozen=True, gc=False):
    """`database`: it answers now. `migrations`: its schema is one that this program works with.

    `writable`: it takes what a login and a post write. `cause`: a name of causes.py where something of it is not so.
    """

    database: bool
    migrations: bool
    writable: bool = True
    cause: str | None = None

    @property
    def usable(self) -> bool:
        """Whether requests can be served with it."""
        return self.database and self.migrations and self.writable

    @property
    def why(self) -> str:
        """What is wrong and what to do about it, for the operator; empty where nothing is."""
        return str(CAUSES[self.cause]) if self.cause is not None else ""


class StorageStats(msgspec.Struct, frozen=True, gc=False):
    """A snapshot for the metrics; zero where the store has no such thing."""

    pool_size: int = 0  # connections open
    pool_idle: int = 0  # of these, unused now
    queue_events: int = 0  # appends waiting for the next commit


class StorageHandler:
    """What a store tells its owner, on the loop; this one ignores it."""

    def control_stored(self, record: ControlRecord) -> None:
        """After the commit, once for each control record that this store object wrote, in log order for each effect.

        Records of different effects may arrive in any order.
        """

    def batch_committed(self, events: int, seconds: float) -> None:
        """After each commit of appends: events in it, seconds that it took."""

    def storage_failed(self, writes: bool, cause: str) -> None:
        """The store failed an effect; `cause`: a name of observability/database_causes.py."""


class Storage(ABC):
    """Performs storage effects. Each is atomic and, once `perform` has returned, durable as far as the store is.

    Errors raised by every method that reads or writes: `StorageUnavailable` (cannot be reached, or the fate of the
    effect is unknown) and its kind `Overloaded` (refused at a bound, nothing done). Texts of a driver never come out.
    `perform` also raises `Refusal` for a change that its author may not make (any more): nothing is done then.
    """

    def __init__(self) -> None:
        self.handler: StorageHandler = StorageHandler()

    def attach(self, handler: StorageHandler) -> None:
        """Tell `handler` what happens; before anything is performed, once."""
        self.handler = handler

    @abstractmethod
    async def start(self) -> None:
        """Returns when the store can be used; waits (and says so in the log) while it cannot be reached."""

    @abstractmethod
    async def aclose(self) -> None:
        """Finish what was begun, within a bound; refuse what waits; let go of everything. Idempotent."""

    def cut(self) -> None:  # noqa: B027 - memory has nothing to wait for
        """`aclose` took too long: what is under way fails now."""

    @abstractmethod
    async def perform(self, effect: StorageEffect[T]) -> T:
        """Perform one effect. A cancelled caller does not undo it: what was begun is finished."""

    @abstractmethod
    async def check(self) -> StorageHealth:
        """Probe for `/ready`, bounded in time. Never raises for an unreachable store: it says so."""

    async def wall_ms(self) -> float | None:
        """UTC milliseconds by the store's own clock, for all replicas the same. None: it has none."""
        return None

    @abstractmethod
    def stats(self) -> StorageStats:
        """No I/O."""
