"""Reads of a replica in memory: heads of logs, visible channels, control records."""

from __future__ import annotations

from openguild_proto.effects.logs import FindLogHead
from openguild_proto.effects.performs import performs
from openguild_proto.effects.replica import (
    FindAudience,
    ReadControlHead,
    ReadControls,
    ReadHeads,
    ReadHistory,
    ReadVisible,
    RecordLineage,
    RenewEpochs,
    Visible,
)
from openguild_proto.memory.logs import find_log_head
from openguild_proto.memory.state import State
from openguild_proto.records import ControlRecord, Head, History


@performs(ReadHeads)
def read_heads(state: State, effect: ReadHeads) -> dict[str, Head]:
    places = {log_id: find_log_head(state, FindLogHead(log_id=log_id)) for log_id in effect.channel_ids}
    return {log_id: Head(place.sequence, place.epoch) for log_id, place in places.items() if place is not None}


@performs(ReadVisible)
def read_visible(state: State, effect: ReadVisible) -> Visible:
    user_id = effect.user_id
    return Visible(
        guild_ids=tuple(sorted(guild_id for guild_id, members in state.members.items() if user_id in members)),
        channel_ids=tuple(channel.record.channel_id for channel in state.channels_seen_by(user_id))[
            : effect.max_channels
        ],
    )


@performs(FindAudience)
def find_audience(state: State, effect: FindAudience) -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = {}
    for guild_id, members in state.members.items():
        if len(members) <= effect.max_members:
            for user_id in effect.user_ids:
                if user_id in members:
                    found.setdefault(user_id, []).append(guild_id)
    return {user_id: tuple(guild_ids) for user_id, guild_ids in found.items()}


@performs(ReadControlHead)
def read_control_head(state: State, effect: ReadControlHead) -> int:
    return state.control_head


@performs(ReadControls)
def read_controls(state: State, effect: ReadControls) -> tuple[ControlRecord, ...]:
    start = max(0, effect.after - state.control_pruned)
    return tuple(state.control[start : start + effect.limit])


@performs(ReadHistory)
def read_history(state: State, effect: ReadHistory) -> History | None:
    """Return None: data in memory is never restored to an earlier state."""
    return None


@performs(RecordLineage)
def record_lineage(state: State, effect: RecordLineage) -> None:
    """Do nothing: `read_history` returns no history."""


@performs(RenewEpochs)
def renew_epochs(state: State, effect: RenewEpochs) -> bool:
    return False
