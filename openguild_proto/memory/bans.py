"""Bans of guilds in memory."""

from __future__ import annotations

from openguild_proto.effects.bans import BanUser, FindBan, ListBans, UnbanUser
from openguild_proto.effects.performs import performs
from openguild_proto.memory.authority import require_in_guild
from openguild_proto.memory.deliveries import end_mirror
from openguild_proto.memory.guilds import end_lost_rights
from openguild_proto.memory.paging import page_after
from openguild_proto.memory.state import State
from openguild_proto.mirror_records import GuildBan
from openguild_proto.policy.bans import decide_ban
from openguild_proto.policy.permissions import Permission
from openguild_proto.records import ControlKind, LimitReached
from openguild_proto.schemas.log_entries import user_banned, user_unbanned


@performs(BanUser)
def ban_user(state: State, effect: BanUser) -> GuildBan | LimitReached:
    guild_id, user_id, author = effect.guild_id, effect.user_id, effect.author
    author_role = require_in_guild(state, author, guild_id, Permission.MANAGE_MEMBERS)
    held, user = state.guild_role(guild_id, user_id), state.users.get(user_id)
    bans = state.bans.get(guild_id, {})
    ban = GuildBan(user_id, author.user_id, effect.now_ms, user.username if user is not None else None, effect.reason)
    decided = decide_ban(ban, bans.get(user_id), author_role=author_role, held=held, bans=len(bans), limit=effect.limit)
    if decided is not ban:
        return decided
    state.members[guild_id].pop(user_id, None)
    ended = end_lost_rights(state, guild_id, user_id, held, None)
    keep_ban(state, guild_id, ban)
    if held is not None:
        last = len(state.logs[guild_id]) + 1
        end_mirror(state, guild_id, user_id, last_sequence=last, now_ms=effect.now_ms)
    entries = user_banned(guild_id, ban, was_member=held is not None, ended_invites=ended)
    state.append(entries, sender=author.user_id, now_ms=effect.now_ms)
    kind = ControlKind.MEMBER_REMOVED if held is not None else ControlKind.ACCESS_CHANGED
    state.log(kind, guild_id=guild_id, user_id=user_id)
    return ban


@performs(UnbanUser)
def unban_user(state: State, effect: UnbanUser) -> bool:
    require_in_guild(state, effect.author, effect.guild_id, Permission.MANAGE_MEMBERS)
    ban = drop_ban(state, effect.guild_id, effect.user_id)
    if ban is None:
        return False
    entries = user_unbanned(effect.guild_id, ban, effect.reason)
    state.append(entries, sender=effect.author.user_id, now_ms=effect.now_ms)
    return True


@performs(FindBan)
def find_ban(state: State, effect: FindBan) -> GuildBan | None:
    return state.bans.get(effect.guild_id, {}).get(effect.user_id)


@performs(ListBans)
def list_bans(state: State, effect: ListBans) -> tuple[GuildBan, ...]:
    return page_after(bans_of(state, effect.guild_id), key=_place, after=effect.after, limit=effect.limit)


def bans_of(state: State, guild_id: str) -> list[GuildBan]:
    """Return the bans of a guild, by time and user id."""
    return sorted(state.bans.get(guild_id, {}).values(), key=_place)


def keep_ban(state: State, guild_id: str, ban: GuildBan) -> None:
    """Store a ban. An existing ban of the user stays as it is."""
    state.bans.setdefault(guild_id, {}).setdefault(ban.user_id, ban)


def drop_ban(state: State, guild_id: str, user_id: str) -> GuildBan | None:
    """Delete a ban and return it, or None if there is none."""
    return state.bans.get(guild_id, {}).pop(user_id, None)


def _place(ban: GuildBan) -> tuple[int, str]:
    return ban.banned_at_ms, ban.user_id
