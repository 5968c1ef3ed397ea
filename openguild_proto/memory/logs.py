"""Logs of every kind in memory."""

from __future__ import annotations

from openguild_proto.effects.guilds import ListGuilds
from openguild_proto.effects.logs import AccountMemberships, FindAccountMemberships, FindLogHead, FindLogs, ReadLogs
from openguild_proto.effects.performs import performs
from openguild_proto.memory.authority import roles_in
from openguild_proto.memory.guilds import list_guilds
from openguild_proto.memory.state import ABSENT, State
from openguild_proto.records import LogAccess, LogPosition, StoredEvent


@performs(FindLogHead)
def find_log_head(state: State, effect: FindLogHead) -> LogPosition | None:
    channel = state.channels.get(effect.log_id)
    if channel is not None:
        return LogPosition(effect.log_id, channel.record.epoch, len(channel.events))
    return state.place_of(effect.log_id) if effect.log_id in state.logs else None


@performs(FindLogs)
def find_logs(state: State, effect: FindLogs) -> tuple[LogAccess, ...]:
    found = (_access(state, effect.user_id, log_id) for log_id in sorted(set(effect.log_ids)))
    return tuple(access for access in found if access is not None)


@performs(FindAccountMemberships)
def find_account_memberships(state: State, effect: FindAccountMemberships) -> AccountMemberships | None:
    if effect.user_id not in state.logs:
        return None
    guilds = list_guilds(state, ListGuilds(user_id=effect.user_id))
    places = tuple((guild, state.place_of(guild.guild_id)) for guild in guilds)
    return AccountMemberships(state.place_of(effect.user_id), places)


def _access(state: State, user_id: str, log_id: str) -> LogAccess | None:
    place = find_log_head(state, FindLogHead(log_id=log_id))
    if place is None:
        return None
    kind, memberships = "user", tuple[str | None, ...]()
    if log_id in state.channels:
        kind, memberships = "channel", roles_in(state, state.channels[log_id], user_id)
    elif log_id in state.guilds:
        kind, memberships = "guild", (state.guild_role(log_id, user_id),)
    return LogAccess(kind, place, memberships, state.roles_of(user_id), state.base_of(log_id))


@performs(ReadLogs)
def read_logs(state: State, effect: ReadLogs) -> tuple[StoredEvent, ...]:
    return tuple(
        event
        for part in effect.parts
        for event in (state.events_of(part.log_id) or ())[part.after : part.after + part.size]
        if event is not ABSENT
    )
