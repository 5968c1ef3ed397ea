"""The store of `--storage memory` (PROTOCOL 11.4.4). Its data is lost when the process ends."""

from __future__ import annotations

from typing import TypeVar

from openguild_proto.effects import StorageEffect
from openguild_proto.effects.process import StorageHealth
from openguild_proto.memory import MemoryTables
from openguild_runtime.storage.base import Storage, StorageStats

T = TypeVar("T")


class MemoryStorage(Storage):
    """The store in `MemoryTables`. Several stores on the same tables act as replicas without PostgreSQL."""

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
        for event in self.tables.take_grown():
            self.handler.log_grew(event)
        written = self.tables.control_head() - before
        for record in self.tables.control_since(before, written):
            self.handler.control_stored(record)
        return result

    async def check(self) -> StorageHealth:
        return StorageHealth(database=True, migrations=True)

    def stats(self) -> StorageStats:
        return StorageStats()
