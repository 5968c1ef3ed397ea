"""The memory store: for tests and simulations, and for a server that was told `--storage memory` (PROTOCOL 11.4.4).

`MemoryTables` is synchronous, so that operations are tested without an event loop; `MemoryStorage` puts it behind
the `Storage` interface. Everything is lost when the process ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar, cast

from openguild_proto.effects import ReadControlHead, ReadControls, ReadHeads, ReadVisible, StorageEffect
from openguild_proto.effects.performs import collect
from openguild_proto.records import ControlRecord, Visible
from openguild_runtime.storage.base import Storage, StorageHealth, StorageStats
from openguild_runtime.storage.memory import accounts, attempts, channels, guilds, replica, retention
from openguild_runtime.storage.memory.state import State

__all__ = ["MemoryStorage", "MemoryTables"]

T = TypeVar("T")

PERFORMERS = collect(accounts, attempts, channels, guilds, replica, retention)
"""Which function performs which effect."""


class MemoryTables:
    """Performs storage effects at once. Not thread-safe; two replicas of a simulation may share one."""

    def __init__(self) -> None:
        self._state = State()

    def perform(self, effect: StorageEffect[T]) -> T:
        """Raises TypeError for an effect that is not storage's, LocalProtocolError where PostgreSQL would refuse."""
        performed = PERFORMERS.get(type(effect))
        if performed is None:
            raise TypeError(f"not a storage effect: {type(effect).__name__}")
        return cast("T", performed.function(self._state, effect))

    def heads(self, channel_ids: Sequence[str]) -> dict[str, int]:
        return self.perform(ReadHeads(channel_ids=tuple(channel_ids)))

    def control_head(self) -> int:
        return self.perform(ReadControlHead())

    def control_since(self, sequence: int, limit: int) -> list[ControlRecord]:
        records = self.perform(ReadControls(after=sequence, limit=limit))
        return list(records)

    def visible(self, user_id: str) -> Visible:
        return self.perform(ReadVisible(user_id=user_id))


class MemoryStorage(Storage):
    """`Storage` over `MemoryTables`; give several of them the same tables to have replicas without PostgreSQL."""

    def __init__(self, tables: MemoryTables | None = None) -> None:
        super().__init__()
        self.tables = tables if tables is not None else MemoryTables()

    async def start(self) -> None:
        return None

    async def aclose(self) -> None:
        return None

    async def perform(self, effect: StorageEffect[T]) -> T:
        before = self.tables.control_head()
        result = self.tables.perform(effect)
        written = self.tables.control_head() - before
        for record in self.tables.control_since(before, written):
            self.handler.control_stored(record)
        return result

    async def check(self) -> StorageHealth:
        return StorageHealth(database=True, migrations=True)

    def stats(self) -> StorageStats:
        return StorageStats()
