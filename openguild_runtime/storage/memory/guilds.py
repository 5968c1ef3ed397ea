"""Guilds, members, invites and guild roles in memory."""

from __future__ import annotations

import msgspec

from openguild_proto.effects import (
    AcceptInvite,
    DeleteGuild,
    DeleteInvite,
    FindGuildAccess,
    FindInvite,
    FindMember,
    GrantGuildRole,
    InsertGuild,
    InsertInvite,
    ListGuilds,
    ListInvites,
    ListMembers,
    RemoveMember,
    RenameGuild,
    SetMemberRole,
)
from openguild_proto.errors import LocalProtocolError
from openguild_proto.policy.permissions import Permission, allows
from openguild_proto.records import (
    ControlKind,
    GuildAccess,
    GuildRecord,
    InviteRecord,
    LimitReached,
    MemberChange,
    MemberRecord,
)
from openguild_runtime.storage.base import OWNER, channel_ids_body
from openguild_runtime.storage.memory.channels import drop_channel
from openguild_runtime.storage.memory.paging import page_after
from openguild_runtime.storage.memory.state import Membership, State


def insert_guild(state: State, effect: InsertGuild) -> GuildRecord | LimitReached:
    if effect.owner_id not in state.users:
        raise LocalProtocolError("a guild needs an existing user as its owner")
    if _guilds_owned(state, effect.owner_id) >= effect.limit:
        return LimitReached(effect.limit)
    guild = GuildRecord(guild_id=effect.guild_id, name=effect.name, created_at_ms=effect.now_ms)
    state.guilds[effect.guild_id] = guild
    state.members[effect.guild_id] = {effect.owner_id: Membership(OWNER, effect.now_ms)}
    state.log(ControlKind.MEMBER_JOINED, guild_id=effect.guild_id, user_id=effect.owner_id)
    return guild


def _guilds_owned(state: State, user_id: str) -> int:
    return sum(state.guild_role(guild_id, user_id) == OWNER for guild_id in state.guilds)


def list_guilds(state: State, effect: ListGuilds) -> tuple[GuildRecord, ...]:
    guilds = sorted(
        (g for g in state.guilds.values() if effect.user_id is None or effect.user_id in state.members[g.guild_id]),
        key=lambda guild: (guild.created_at_ms, guild.guild_id),
    )
    return page_after(
        guilds,
        key=lambda guild: (guild.created_at_ms, guild.guild_id),
        after=effect.after,
        limit=effect.limit,
    )


def find_guild_access(state: State, effect: FindGuildAccess) -> GuildAccess | None:
    guild = state.guilds.get(effect.guild_id)
    if guild is None:
        return None
    return GuildAccess(
        guild=guild, role=state.guild_role(effect.guild_id, effect.user_id), server_roles=state.roles_of(effect.user_id)
    )


def rename_guild(state: State, effect: RenameGuild) -> GuildRecord | None:
    guild = state.guilds.get(effect.guild_id)
    if guild is None:
        return None
    state.guilds[effect.guild_id] = renamed = msgspec.structs.replace(guild, name=effect.name)
    return renamed


def delete_guild(state: State, effect: DeleteGuild) -> bool:
    if state.guilds.pop(effect.guild_id, None) is None:
        return False
    channels = state.channels_of_guild(effect.guild_id)
    for channel in channels:
        drop_channel(state, channel)
    del state.members[effect.guild_id]
    for invite in [invite for invite in state.invites.values() if invite.guild_id == effect.guild_id]:
        del state.invites[invite.code]
    body = channel_ids_body([channel.record.channel_id for channel in channels])
    state.log(ControlKind.GUILD_DELETED, guild_id=effect.guild_id, body=body)
    return True


# --- members -------------------------------------------------------------------------------------


def list_members(state: State, effect: ListMembers) -> tuple[MemberRecord, ...]:
    members = [_member(state, effect.guild_id, user_id) for user_id in state.members.get(effect.guild_id, {})]
    present = sorted((m for m in members if m is not None), key=lambda member: (member.joined_at_ms, member.user_id))
    return page_after(
        present,
        key=lambda member: (member.joined_at_ms, member.user_id),
        after=effect.after,
        limit=effect.limit,
    )


def find_member(state: State, effect: FindMember) -> MemberRecord | None:
    return _member(state, effect.guild_id, effect.user_id)


def set_member_role(state: State, effect: SetMemberRole) -> MemberChange:
    verdict = _may_change(state, effect.guild_id, effect.user_id, effect.expected_role, leaves=effect.role != OWNER)
    full = effect.role == OWNER and _guilds_owned(state, effect.user_id) >= effect.limit
    if verdict is MemberChange.DONE and full:
        return MemberChange.LIMIT_REACHED
    if verdict is MemberChange.DONE:
        state.members[effect.guild_id][effect.user_id].role = effect.role
        _end_invites(state, effect.guild_id, effect.user_id, effect.role)
        state.log(ControlKind.MEMBER_CHANGED, guild_id=effect.guild_id, user_id=effect.user_id)
    return verdict


def remove_member(state: State, effect: RemoveMember) -> MemberChange:
    verdict = _may_change(state, effect.guild_id, effect.user_id, effect.expected_role, leaves=True)
    if verdict is MemberChange.DONE:
        del state.members[effect.guild_id][effect.user_id]
        for channel in state.channels_of_guild(effect.guild_id):
            channel.roles.pop(effect.user_id, None)
        _end_invites(state, effect.guild_id, effect.user_id, None)
        state.log(ControlKind.MEMBER_REMOVED, guild_id=effect.guild_id, user_id=effect.user_id)
    return verdict


def _end_invites(state: State, guild_id: str, user_id: str, role: str | None) -> None:
    """Unless `role`, the creator's from now on, may still create them: an invite is worth what its creator may do."""
    if not allows(role, Permission.CREATE_INVITES):
        for code, invite in list(state.invites.items()):
            if invite.guild_id == guild_id and invite.created_by == user_id:
                del state.invites[code]


def grant_guild_role(state: State, effect: GrantGuildRole) -> MemberChange | None:
    if effect.guild_id not in state.guilds or effect.user_id not in state.users:
        return None
    members = state.members[effect.guild_id]
    held = state.guild_role(effect.guild_id, effect.user_id)
    if held == OWNER and effect.role != OWNER and _owners(state, effect.guild_id) == 1:
        return MemberChange.LAST_OWNER
    if effect.user_id in members:
        members[effect.user_id].role = effect.role
        kind = ControlKind.MEMBER_CHANGED
    else:
        members[effect.user_id] = Membership(effect.role, effect.now_ms)
        kind = ControlKind.MEMBER_JOINED
    _end_invites(state, effect.guild_id, effect.user_id, effect.role)
    state.log(kind, guild_id=effect.guild_id, user_id=effect.user_id)
    return MemberChange.DONE


def _may_change(state: State, guild_id: str, user_id: str, expected_role: str, *, leaves: bool) -> MemberChange:
    """`leaves`: the member will not be an owner afterwards."""
    members = state.members.get(guild_id, {})
    if user_id not in members:
        return MemberChange.NOT_MEMBER
    role = members[user_id].role
    if role != expected_role:
        return MemberChange.CONFLICT
    if role == OWNER and leaves and _owners(state, guild_id) == 1:
        return MemberChange.LAST_OWNER
    return MemberChange.DONE


def _owners(state: State, guild_id: str) -> int:
    return sum(member.role == OWNER for member in state.members[guild_id].values())


def _member(state: State, guild_id: str, user_id: str) -> MemberRecord | None:
    membership = state.members.get(guild_id, {}).get(user_id)
    if membership is None:
        return None
    return MemberRecord(
        guild_id=guild_id,
        user_id=user_id,
        username=state.users[user_id].username,
        role=membership.role,
        joined_at_ms=membership.joined_at_ms,
    )


# --- invites -------------------------------------------------------------------------------------


def _lives(invite: InviteRecord, now_ms: int) -> bool:
    expired = invite.expires_at_ms is not None and invite.expires_at_ms <= now_ms
    return not expired and (invite.max_uses is None or invite.uses < invite.max_uses)


def insert_invite(state: State, effect: InsertInvite) -> InviteRecord | LimitReached | None:
    guild = state.guilds.get(effect.guild_id)
    if guild is None or state.guild_role(effect.guild_id, effect.created_by) != effect.member_role:
        return None
    others = [invite for invite in state.invites.values() if invite.guild_id == effect.guild_id]
    spent = [invite for invite in others if not _lives(invite, effect.now_ms)]
    if len(others) - len(spent) >= effect.limit:
        return LimitReached(effect.limit)
    spent.sort(key=lambda invite: (-invite.created_at_ms, invite.code))
    for old in spent[effect.limit :]:
        del state.invites[old.code]
    invite = InviteRecord(
        code=effect.code,
        guild_id=effect.guild_id,
        guild_name=guild.name,
        max_uses=effect.max_uses,
        uses=0,
        expires_at_ms=effect.expires_at_ms,
        created_by=effect.created_by,
        created_at_ms=effect.now_ms,
    )
    state.invites[effect.code] = invite
    return invite


def list_invites(state: State, effect: ListInvites) -> tuple[InviteRecord, ...]:
    invites = sorted(
        (invite for invite in state.invites.values() if invite.guild_id == effect.guild_id),
        key=lambda invite: (invite.created_at_ms, invite.code),
    )
    return page_after(
        invites, key=lambda invite: (invite.created_at_ms, invite.code), after=effect.after, limit=effect.limit
    )


def find_invite(state: State, effect: FindInvite) -> InviteRecord | None:
    invite = state.invites.get(effect.code)
    if invite is None:
        return None
    return msgspec.structs.replace(
        invite,
        guild_name=state.guilds[invite.guild_id].name,
        member_count=len(state.members[invite.guild_id]),
    )


def accept_invite(state: State, effect: AcceptInvite) -> MemberRecord | LimitReached | None:
    invite = state.invites.get(effect.code)
    if invite is None or effect.user_id not in state.users:
        return None
    already = _member(state, invite.guild_id, effect.user_id)
    if already is not None:
        return already
    if not _lives(invite, effect.now_ms):
        return None
    if sum(effect.user_id in members for members in state.members.values()) >= effect.limit:
        return LimitReached(effect.limit)
    state.invites[effect.code] = msgspec.structs.replace(invite, uses=invite.uses + 1)
    state.members[invite.guild_id][effect.user_id] = Membership(effect.role, effect.now_ms)
    for channel in state.channels_of_guild(invite.guild_id):
        channel.reads[effect.user_id] = max(len(channel.events), channel.reads.get(effect.user_id, 0))
    state.log(ControlKind.MEMBER_JOINED, guild_id=invite.guild_id, user_id=effect.user_id)
    return _member(state, invite.guild_id, effect.user_id)


def delete_invite(state: State, effect: DeleteInvite) -> bool:
    return state.invites.pop(effect.code, None) is not None
