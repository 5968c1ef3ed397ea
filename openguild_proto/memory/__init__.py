"""The store in memory: for embedders, tests, simulations and `--storage memory` (PROTOCOL 11.4.4).

It is synchronous, so operations run without an event loop. Its data is lost when the process ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar, cast

from openguild_proto.effects import StorageEffect
from openguild_proto.effects.performs import collect
from openguild_proto.effects.replica import ReadControlHead, ReadControls, ReadHeads
from openguild_proto.memory import (
    accounts,
    appends,
    attempts,
    bans,
    chains,
    channels,
    deleted_accounts,
    deliveries,
    federation,
    guilds,
    handovers,
    logs,
    mentions,
    messages,
    mirror_events,
    mirrors,
    pending_leaves,
    remote_members,
    replica_reads,
    retention,
    search,
    takeovers,
    timeouts,
)
from openguild_proto.memory.state import State
from openguild_proto.records import ControlRecord, StoredEvent
from openguild_proto.schemas.log_writer import LogWriter

T = TypeVar("T")

PERFORMERS = collect(
    accounts,
    appends,
    attempts,
    bans,
    chains,
    channels,
    deleted_accounts,
    deliveries,
    federation,
    guilds,
    handovers,
    logs,
    mentions,
    messages,
    mirror_events,
    mirrors,
    pending_leaves,
    remote_members,
    replica_reads,
    retention,
    search,
    takeovers,
    timeouts,
)
"""The function that performs each effect."""


class MemoryTables:
    """Performs storage effects synchronously. Not thread-safe; replicas of a simulation may share one."""

    def __init__(self, writer: LogWriter | None = None) -> None:
        self._state = State(writer or LogWriter())

    def perform(self, effect: StorageEffect[T]) -> T:
        """Perform one effect. Raises TypeError for other effects, and LocalProtocolError where PostgreSQL would raise."""
        performed = PERFORMERS.get(type(effect))
        if performed is None:
            raise TypeError(f"not a storage effect: {type(effect).__name__}")
        self._state.now_ms = max(self._state.now_ms, getattr(effect, "now_ms", None) or 0)
        return cast("T", performed.function(self._state, effect))

    def heads(self, channel_ids: Sequence[str]) -> dict[str, int]:
        """Return the newest sequence of each of these channels that exists."""
        heads = self.perform(ReadHeads(channel_ids=tuple(channel_ids)))
        return {channel_id: head.sequence for channel_id, head in heads.items()}

    def control_head(self) -> int:
        """Return the sequence of the newest control record, or 0."""
        return self.perform(ReadControlHead())

    def control_since(self, sequence: int, limit: int) -> list[ControlRecord]:
        """Return the first `limit` control records after `sequence`, in order."""
        records = self.perform(ReadControls(after=sequence, limit=limit))
        return list(records)

    def take_grown(self) -> list[StoredEvent]:
        """Remove and return the events of guilds' and users' logs that were appended since the last call."""
        grown, self._state.grown = self._state.grown, []
        return grown
