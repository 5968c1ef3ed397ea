"""A store in memory: for embedders, tests and simulations, and for a server that was told `--storage memory` (PROTOCOL 11.4.4).

It is synchronous, so that operations run without an event loop. Everything is lost when the process ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar, cast

from openguild_proto.effects import StorageEffect
from openguild_proto.effects.performs import collect
from openguild_proto.effects.replica import ReadControlHead, ReadControls, ReadHeads, ReadVisible
from openguild_proto.memory import accounts, appends, attempts, channels, guilds, messages, replica, retention
from openguild_proto.memory.state import State
from openguild_proto.records import ControlRecord, Visible

T = TypeVar("T")

PERFORMERS = collect(accounts, appends, attempts, channels, guilds, messages, replica, retention)
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
        """The newest sequence of each channel that exists."""
        return self.perform(ReadHeads(channel_ids=tuple(channel_ids)))

    def control_head(self) -> int:
        """The sequence of the newest control record, 0 when there is none."""
        return self.perform(ReadControlHead())

    def control_since(self, sequence: int, limit: int) -> list[ControlRecord]:
        """The first `limit` control records after `sequence`, in order."""
        records = self.perform(ReadControls(after=sequence, limit=limit))
        return list(records)

    def visible(self, user_id: str) -> Visible:
        """What the user's notification stream covers."""
        return self.perform(ReadVisible(user_id=user_id))
