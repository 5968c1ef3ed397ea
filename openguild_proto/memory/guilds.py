"""Guilds, members, invites and guild roles in memory."""

from __future__ import annotations

import msgspec

from openguild_proto.effects.guilds import (
    AcceptInvite,
    DeleteGuild,
    DeleteInvite,
    FindGuildAccess,
    FindInvite,
    FindMember,
    InsertGuild,
    InsertInvite,
    ListGuilds,
    ListInvites,
    ListMembers,
    RemoveMember,
    RenameGuild,
    SetMemberRole,
)
from openguild_proto.effects.performs import performs
from openguild_proto.effects.roles import GrantGuildRole
from openguild_proto.errors import ErrorCode, LocalProtocolError, Refusal
from openguild_proto.memory.authority import guild_role_now, require_author, require_in_guild
from openguild_proto.memory.channels import drop_channel
from openguild_proto.memory.deliveries import end_mirror, end_mirrors
from openguild_proto.memory.paging import page_after
from openguild_proto.memory.repeats import find_repeat, keep_answer
from openguild_proto.memory.state import Membership, State
from openguild_proto.policy.channels import decide_read_position
from openguild_proto.policy.count_limits import check_count
from openguild_proto.policy.guilds import decide_guild
from openguild_proto.policy.invites import Joining, decide_joining, decide_new_invite
from openguild_proto.policy.members import OWNER, decide_ended, decide_grant, decide_removal, decide_role_change
from openguild_proto.policy.permissions import Permission, needed_to_delete, require_owned
from openguild_proto.records import (
    ControlKind,
    GuildAccess,
    GuildRecord,
    InviteRecord,
    LimitReached,
    MemberChange,
    MemberRecord,
)
from openguild_proto.schemas.log_entries import (
    guild_created,
    guild_renamed,
    invite_created,
    invite_deleted,
    member_gone,
    member_joined,
    role_set,
)
from openguild_proto.schemas.payloads import channel_ids_body


@performs(InsertGuild)
def insert_guild(state: State, effect: InsertGuild) -> GuildRecord | LimitReached:
    owner_id = effect.author.user_id
    require_author(state, effect.author)
    repeated = find_repeat(state, effect.author, effect.once, GuildRecord, effect.now_ms)
    if repeated is not None:
        return repeated
    full = check_count(_guilds_owned(state, owner_id), effect.limit)
    if full is not None:
        return full
    guild = GuildRecord(guild_id=effect.guild_id, name=effect.name, created_at_ms=effect.now_ms)
    state.guilds[effect.guild_id] = guild
    state.members[effect.guild_id] = {owner_id: Membership(OWNER, effect.now_ms)}
    state.logs[effect.guild_id] = []
    entries = guild_created(guild, known_member(state, effect.guild_id, owner_id))
    state.append(entries, sender=owner_id, now_ms=effect.now_ms)
    keep_answer(state, effect.author, effect.once, guild, effect.now_ms)
    state.log(ControlKind.MEMBER_JOINED, guild_id=effect.guild_id, user_id=owner_id)
    return guild


def _guilds_owned(state: State, user_id: str) -> int:
    return sum(state.guild_role(guild_id, user_id) == OWNER for guild_id in state.guilds)


@performs(ListGuilds)
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


@performs(FindGuildAccess)
def find_guild_access(state: State, effect: FindGuildAccess) -> GuildAccess | None:
    guild = state.guilds.get(effect.guild_id)
    if guild is None:
        return None
    return GuildAccess(
        guild=guild,
        role=guild_role_now(state, effect.guild_id, effect.user_id),
        server_roles=state.roles_of(effect.user_id),
        place=state.place_of(effect.guild_id),
        base=state.base_of(effect.guild_id),
    )


@performs(RenameGuild)
def rename_guild(state: State, effect: RenameGuild) -> GuildRecord:
    require_in_guild(state, effect.author, effect.guild_id, Permission.RENAME)
    guild = state.guilds[effect.guild_id]
    renamed = decide_guild(guild, name=effect.name)
    if renamed is None:
        return guild
    state.guilds[effect.guild_id] = renamed
    state.append(guild_renamed(renamed, effect.reason), sender=effect.author.user_id, now_ms=effect.now_ms)
    return renamed


@performs(DeleteGuild)
def delete_guild(state: State, effect: DeleteGuild) -> None:
    require_in_guild(state, effect.author, effect.guild_id, Permission.DELETE)
    del state.guilds[effect.guild_id]
    channels = state.channels_of_guild(effect.guild_id)
    for channel in channels:
        drop_channel(state, channel)
    del state.members[effect.guild_id]
    del state.logs[effect.guild_id]
    end_mirrors(state, effect.guild_id)
    of_guild = (state.moves, state.ownerships, state.successions, state.bans, state.timeouts)
    of_log = (state.epochs, state.bases, state.histories)
    for known in (*of_guild, *of_log):
        known.pop(effect.guild_id, None)
    for invite in [invite for invite in state.invites.values() if invite.guild_id == effect.guild_id]:
        del state.invites[invite.code]
    body = channel_ids_body([channel.record.channel_id for channel in channels])
    state.log(ControlKind.GUILD_DELETED, guild_id=effect.guild_id, body=body)


# --- members -------------------------------------------------------------------------------------


@performs(ListMembers)
def list_members(state: State, effect: ListMembers) -> tuple[MemberRecord, ...]:
    members = [_member(state, effect.guild_id, user_id) for user_id in state.members.get(effect.guild_id, {})]
    present = sorted((m for m in members if m is not None), key=lambda member: (member.joined_at_ms, member.user_id))
    return page_after(
        present,
        key=lambda member: (member.joined_at_ms, member.user_id),
        after=effect.after,
        limit=effect.limit,
    )


@performs(FindMember)
def find_member(state: State, effect: FindMember) -> MemberRecord | None:
    return _member(state, effect.guild_id, effect.user_id)


@performs(SetMemberRole)
def set_member_role(state: State, effect: SetMemberRole) -> MemberChange:
    user_id, author = effect.user_id, effect.author
    own_role = require_in_guild(state, author, effect.guild_id, Permission.MANAGE_MEMBERS)
    held = state.guild_role(effect.guild_id, user_id)
    change = decide_role_change(
        author_role=own_role,
        held=held,
        role=effect.role,
        own=user_id == author.user_id,
        owners=_owners(state, effect.guild_id),
        owned=_guilds_owned(state, user_id),
        limit=effect.limit,
    )
    if change is not MemberChange.DONE:
        return change
    state.members[effect.guild_id][user_id].role = effect.role
    ended = end_lost_rights(state, effect.guild_id, user_id, held, effect.role)
    entries = role_set(effect.guild_id, user_id, effect.role, ended_invites=ended, reason=effect.reason)
    state.append(entries, sender=author.user_id, now_ms=effect.now_ms)
    state.log(ControlKind.MEMBER_CHANGED, guild_id=effect.guild_id, user_id=user_id)
    return MemberChange.DONE


@performs(RemoveMember)
def remove_member(state: State, effect: RemoveMember) -> MemberChange:
    user_id, author = effect.user_id, effect.author
    author_role = None
    if user_id == author.user_id:
        require_author(state, author)
        require_owned(state.guilds[effect.guild_id].origin if effect.guild_id in state.guilds else None)
    else:
        author_role = require_in_guild(state, author, effect.guild_id, Permission.MANAGE_MEMBERS)
    held = state.guild_role(effect.guild_id, user_id)
    change = decide_removal(author_role=author_role, held=held, owners=_owners(state, effect.guild_id))
    if change is not MemberChange.DONE:
        return change
    del state.members[effect.guild_id][user_id]
    ended = end_lost_rights(state, effect.guild_id, user_id, held, None)
    removed = user_id != author.user_id
    entries = member_gone(effect.guild_id, user_id, removed=removed, ended_invites=ended, reason=effect.reason)
    last = len(state.logs[effect.guild_id]) + 1
    end_mirror(state, effect.guild_id, user_id, last_sequence=last, now_ms=effect.now_ms)
    state.append(entries, sender=author.user_id, now_ms=effect.now_ms)
    state.log(ControlKind.MEMBER_REMOVED, guild_id=effect.guild_id, user_id=user_id)
    return MemberChange.DONE


def end_lost_rights(state: State, guild_id: str, user_id: str, held: str | None, role: str | None) -> list[str]:
    """End the rights that a member loses with the role `role`. Return the codes of the deleted invites."""
    ended = decide_ended(held, role)
    for channel in state.channels_of_guild(guild_id):
        explicit = channel.roles.get(user_id)
        if explicit is not None and (ended.channel_roles is None or explicit.role in ended.channel_roles):
            del channel.roles[user_id]
    own = [i.code for i in state.invites.values() if i.guild_id == guild_id and i.created_by == user_id]
    codes = own if ended.invites else []
    for code in codes:
        del state.invites[code]
    return codes


@performs(GrantGuildRole)
def grant_guild_role(state: State, effect: GrantGuildRole) -> MemberChange | None:
    guild, user = state.guilds.get(effect.guild_id), state.users.get(effect.user_id)
    if guild is None or guild.origin is not None or user is None:
        return None
    members = state.members[effect.guild_id]
    held = state.guild_role(effect.guild_id, effect.user_id)
    if user.origin is not None and held is None:
        return MemberChange.NOT_MEMBER
    is_banned = effect.user_id in state.bans.get(effect.guild_id, {})
    change = decide_grant(held=held, role=effect.role, owners=_owners(state, effect.guild_id), is_banned=is_banned)
    if change is not MemberChange.DONE:
        return change
    ended = end_lost_rights(state, effect.guild_id, effect.user_id, held, effect.role)
    if effect.user_id in members:
        members[effect.user_id].role = effect.role
        kind = ControlKind.MEMBER_CHANGED
        entries = role_set(effect.guild_id, effect.user_id, effect.role, ended_invites=ended)
    else:
        members[effect.user_id] = Membership(effect.role, effect.now_ms)
        kind = ControlKind.MEMBER_JOINED
        joined = known_member(state, effect.guild_id, effect.user_id)
        entries = member_joined(state.guilds[effect.guild_id], joined)
    state.append(entries, sender=None, now_ms=effect.now_ms)
    state.log(kind, guild_id=effect.guild_id, user_id=effect.user_id)
    return MemberChange.DONE


def _owners(state: State, guild_id: str) -> int:
    return sum(member.role == OWNER for member in state.members.get(guild_id, {}).values())


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
        display_name=state.users[user_id].display_name,
        origin=state.users[user_id].origin,
        timed_out_until_ms=state.timed_out_until(guild_id, user_id) if membership.role != OWNER else None,
    )


def known_member(state: State, guild_id: str, user_id: str) -> MemberRecord:
    """Return the membership of a user who is a member. Raises LocalProtocolError for others."""
    member = _member(state, guild_id, user_id)
    if member is None:
        raise LocalProtocolError("a member was looked for before they joined")
    return member


# --- invites -------------------------------------------------------------------------------------


@performs(InsertInvite)
def insert_invite(state: State, effect: InsertInvite) -> InviteRecord | LimitReached:
    require_in_guild(state, effect.author, effect.guild_id, Permission.CREATE_INVITES)
    repeated = find_repeat(state, effect.author, effect.once, InviteRecord, effect.now_ms)
    if repeated is not None:
        return repeated
    others = [invite for invite in state.invites.values() if invite.guild_id == effect.guild_id]
    deleted = decide_new_invite(others, now_ms=effect.now_ms, limit=effect.limit)
    if isinstance(deleted, LimitReached):
        return deleted
    for code in deleted:
        del state.invites[code]
    invite = InviteRecord(
        code=effect.code,
        guild_id=effect.guild_id,
        guild_name=state.guilds[effect.guild_id].name,
        max_uses=effect.max_uses,
        uses=0,
        expires_at_ms=effect.expires_at_ms,
        created_by=effect.author.user_id,
        created_at_ms=effect.now_ms,
    )
    state.invites[effect.code] = invite
    keep_answer(state, effect.author, effect.once, invite, effect.now_ms)
    state.append(invite_created(invite), sender=effect.author.user_id, now_ms=effect.now_ms)
    return invite


@performs(ListInvites)
def list_invites(state: State, effect: ListInvites) -> tuple[InviteRecord, ...]:
    invites = sorted(
        (invite for invite in state.invites.values() if invite.guild_id == effect.guild_id),
        key=lambda invite: (invite.created_at_ms, invite.code),
    )
    return page_after(
        invites, key=lambda invite: (invite.created_at_ms, invite.code), after=effect.after, limit=effect.limit
    )


@performs(FindInvite)
def find_invite(state: State, effect: FindInvite) -> InviteRecord | None:
    invite = state.invites.get(effect.code)
    if invite is None:
        return None
    return msgspec.structs.replace(
        invite,
        guild_name=state.guilds[invite.guild_id].name,
        member_count=min(len(state.members[invite.guild_id]), effect.counted),
        origin=state.guilds[invite.guild_id].origin,
    )


@performs(AcceptInvite)
def accept_invite(state: State, effect: AcceptInvite) -> MemberRecord | LimitReached | None:
    user_id = effect.author.user_id
    require_author(state, effect.author)
    repeated = find_repeat(state, effect.author, effect.once, MemberRecord, effect.now_ms)
    if repeated is not None:
        return repeated
    invite = state.invites.get(effect.code)
    already = _member(state, invite.guild_id, user_id) if invite is not None else None
    joining = decide_joining(
        invite,
        is_member=already is not None,
        is_banned=invite is not None and user_id in state.bans.get(invite.guild_id, {}),
        joined=sum(user_id in members for members in state.members.values()),
        now_ms=effect.now_ms,
        limit=effect.limit,
    )
    if joining is Joining.LIMIT_REACHED:
        return LimitReached(effect.limit)
    if invite is None or joining in {Joining.MEMBER_ALREADY, Joining.INVALID}:
        if already is not None:
            keep_answer(state, effect.author, effect.once, already, effect.now_ms)
        return already
    require_owned(state.guilds[invite.guild_id].origin)
    if joining is Joining.BANNED:
        raise Refusal(ErrorCode.BANNED)
    state.invites[effect.code] = msgspec.structs.replace(invite, uses=invite.uses + 1)
    state.members[invite.guild_id][user_id] = Membership(effect.role, effect.now_ms)
    for channel in state.channels_of_guild(invite.guild_id):
        channel.reads[user_id] = decide_read_position(
            None, head=len(channel.events), stored=channel.reads.get(user_id, 0)
        )
    member = known_member(state, invite.guild_id, user_id)
    keep_answer(state, effect.author, effect.once, member, effect.now_ms)
    entries = member_joined(state.guilds[invite.guild_id], member, invite_code=effect.code)
    state.append(entries, sender=user_id, now_ms=effect.now_ms)
    state.log(ControlKind.MEMBER_JOINED, guild_id=invite.guild_id, user_id=user_id)
    return member


@performs(DeleteInvite)
def delete_invite(state: State, effect: DeleteInvite) -> None:
    invite = state.invites.get(effect.code)
    if invite is None:
        raise Refusal(ErrorCode.NOT_FOUND)
    require_in_guild(state, effect.author, invite.guild_id, needed_to_delete(invite.created_by, effect.author.user_id))
    del state.invites[effect.code]
    state.append(invite_deleted(invite, effect.reason), sender=effect.author.user_id, now_ms=effect.now_ms)
