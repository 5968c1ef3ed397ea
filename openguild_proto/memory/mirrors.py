"""Mirrors of other servers' guilds in memory. Their events are in mirror_events.py.

A mirrored log begins at its base. The list is filled with `ABSENT` up to there.
"""

from __future__ import annotations

from msgspec.structs import replace

from openguild_proto.canonical.keys import decode_unpadded
from openguild_proto.effects.mirrors import ClearedPart, ClearMirror, DropMirror, FindMirrorHead, StoreMirror, is_behind
from openguild_proto.effects.performs import performs
from openguild_proto.errors import ErrorCode, Refusal
from openguild_proto.limits import MAX_NOTED_UNKNOWN
from openguild_proto.memory.bans import keep_ban
from openguild_proto.memory.channels import drop_channel
from openguild_proto.memory.state import ABSENT, Channel, Membership, Mirror, State
from openguild_proto.mirror_records import MirroredChannel, MirroredMember, Snapshot, place_of
from openguild_proto.records import ChannelRecord, ControlKind, GuildRecord, LogPosition, MemberRecord, UserRecord
from openguild_proto.schemas.events import parse_content, parse_event
from openguild_proto.schemas.log_contents import MemberLeftContent, MemberRemovedContent
from openguild_proto.schemas.log_entries import joined_guild, left_guild
from openguild_proto.schemas.payloads import channel_ids_body


@performs(StoreMirror)
def store_mirror(state: State, effect: StoreMirror) -> bool:
    guild = state.guilds.get(effect.guild_id)
    if guild is None and effect.guild_id in state.logs:
        raise Refusal(ErrorCode.ID_TAKEN)
    if guild is not None and guild.origin != effect.origin:
        raise Refusal(ErrorCode.ID_TAKEN)
    snapshot = effect.snapshot
    if effect.joined is not None and effect.joined.user_id not in state.users:  # the account was deleted meanwhile
        raise Refusal(ErrorCode.UNAUTHORIZED)
    if snapshot is None and guild is None:
        return False
    here = state.place_of(effect.guild_id) if guild is not None else None
    if snapshot is None and here is not None and effect.stands is not None and is_behind(here, effect.stands):
        return False
    begins = snapshot is not None and (here is None or is_behind(here, place_of(snapshot)))
    if not begins and effect.stands is not None and effect.stands.sequence < state.mirrors[effect.guild_id].base:
        return False
    if snapshot is not None and begins:
        _require_free(state, effect.origin, snapshot)
        gone = _store(state, effect.origin, snapshot, anew=guild is not None)
        _tell_gone(state, effect.guild_id, gone, effect.now_ms)
        if guild is not None:
            state.log(ControlKind.LOGS_RENEWED, guild_id=effect.guild_id)
    if effect.joined is not None and not _has_gone(state, effect):
        state.pending_leaves.pop((effect.origin, effect.guild_id, effect.joined.user_id), None)
        admit(state, effect.guild_id, effect.joined, effect.now_ms)
    for line in snapshot.channels if snapshot is not None and begins else ():
        add_roles(state, line)
    return True


@performs(ClearMirror)
def clear_mirror(state: State, effect: ClearMirror) -> ClearedPart | None:
    return None  # nothing else waits for `StoreMirror` here


def _has_gone(state: State, effect: StoreMirror) -> bool:
    """Return whether the mirror has an event by which the user left after they joined."""
    after = effect.stands.sequence if effect.stands is not None else len(state.logs[effect.guild_id])
    stored = (event for event in state.logs[effect.guild_id][after:] if event is not ABSENT)
    contents = (parse_content(parse_event(event.wire)) for event in stored)
    return any(
        isinstance(content, MemberLeftContent | MemberRemovedContent)
        and effect.joined is not None
        and content.user_id == effect.joined.user_id
        for content in contents
    )


def _require_free(state: State, origin: str, snapshot: Snapshot) -> None:
    for channel in snapshot.channels:
        known = state.channels.get(channel.channel_id)
        if known is not None and known.record.guild_id != snapshot.guild_id:
            raise Refusal(ErrorCode.ID_TAKEN)


def _tell_gone(state: State, guild_id: str, user_ids: list[str], now_ms: int) -> None:
    """Record in the logs of users of this server that they are no longer members."""
    for user_id in user_ids:
        state.append(left_guild(guild_id, user_id, removed=True, reason=None), sender=None, now_ms=now_ms)
    for user_id in user_ids:
        state.log(ControlKind.MEMBER_REMOVED, guild_id=guild_id, user_id=user_id)


def _store(state: State, origin: str, snapshot: Snapshot, *, anew: bool) -> list[str]:
    """Store the snapshot. Return the users of this server who are no longer members."""
    guild_id = snapshot.guild_id
    own = {user for user in state.members.get(guild_id, {}) if state.users[user].origin is None}
    if anew:
        state.histories.pop(guild_id, None)
        for channel in state.channels_of_guild(guild_id):
            drop_channel(state, channel)
            state.mirrors.pop(channel.record.channel_id, None)
    state.guilds[guild_id] = GuildRecord(guild_id, snapshot.name, snapshot.created_at_ms, origin)
    state.logs[guild_id] = [ABSENT] * snapshot.sequence
    state.epochs[guild_id] = snapshot.epoch
    state.mirrors[guild_id] = Mirror(guild_id, snapshot.sequence, _hash(snapshot.chain))
    state.ownerships[guild_id] = (snapshot.term, snapshot.serial)
    state.bans[guild_id] = {}
    for ban in snapshot.bans:
        keep_ban(state, guild_id, ban)
    state.members[guild_id], state.timeouts[guild_id] = {}, {}
    for member in snapshot.members:
        home = home_of(state, origin, member.origin)
        if home is None and member.user_id not in own:
            continue
        if know_user(state, member, home, origin, member.joined_at_ms):
            state.members[guild_id][member.user_id] = Membership(member.role, member.joined_at_ms)
            keep_timeout(state, guild_id, member)
    for line in snapshot.channels:
        add_channel(state, origin, guild_id, line)
    return sorted(own - state.members[guild_id].keys())


def home_of(state: State, sender: str, origin: str | None) -> str | None:
    """Return the home server of a user, who is of `origin` according to the server `sender`. None: this server."""
    home = origin if origin is not None else sender
    return None if home == state.writer.server_name else home


def know_user(state: State, member: MirroredMember, home: str | None, sender: str, now_ms: int) -> bool:
    """Keep the names of a remote user, where their home says them or nobody has before.

    False: there is no such user of this server, or the id is that of another server's.
    """
    known = state.users.get(member.user_id)
    if known is not None:
        if known.origin != home:
            return False
        if home == sender:
            state.users[member.user_id] = replace(known, username=member.username, display_name=member.display_name)
        return True
    if home is None or state.has_log(member.user_id):
        return False
    state.users[member.user_id] = UserRecord(
        member.user_id, member.username, "", now_ms, now_ms, display_name=member.display_name, origin=home
    )
    state.logs[member.user_id] = []
    return True


def keep_timeout(state: State, guild_id: str, member: MirroredMember) -> None:
    """Store a member's timeout as reported by the owner. Replaces an earlier one."""
    if member.timed_out_until_ms is not None:
        state.timeouts.setdefault(guild_id, {})[member.user_id] = member.timed_out_until_ms


def add_channel(state: State, origin: str, guild_id: str, line: MirroredChannel) -> Channel:
    """Add a channel whose log begins after the sequence in `line`."""
    record = ChannelRecord(
        line.channel_id,
        guild_id,
        line.name,
        line.created_at_ms,
        line.topic,
        line.position,
        line.epoch,
        origin,
        line.sequence,
    )
    channel = Channel(record, events=[ABSENT] * line.sequence, senders=[""] * line.sequence)
    state.channels[line.channel_id] = channel
    state.mirrors[line.channel_id] = Mirror(guild_id, line.sequence, _hash(line.chain))
    for user_id in state.members[guild_id]:
        channel.reads[user_id] = line.sequence
    return channel


def add_roles(state: State, line: MirroredChannel) -> None:
    """Add the explicit roles in a channel, after the members."""
    channel = state.channels[line.channel_id]
    for user_id, role in line.roles.items():
        if may_have_role(state, channel.record.guild_id, user_id):
            channel.roles[user_id] = Membership(role, line.created_at_ms)


def may_have_role(state: State, guild_id: str, user_id: str) -> bool:
    """Return whether the owner may give a user a role in a channel. Users of this server must be members (PROTOCOL 16.5.5)."""
    known = state.users.get(user_id)
    return known is not None and (known.origin is not None or user_id in state.members[guild_id])


def note_mistaken(state: State, origin: str, guild_id: str, user_id: str, now_ms: int) -> None:
    """Store a pending leave for a user whom the owner counts as a member, unless they are one. Their account may be deleted."""
    known = state.users.get(user_id)
    if known is None:
        is_noted = sum(key[0] == origin for key in state.pending_leaves) < MAX_NOTED_UNKNOWN
    else:
        is_noted = known.origin is None and user_id not in state.members.get(guild_id, {})
    if is_noted:
        key = origin, guild_id, user_id
        state.pending_leaves[key] = (
            max(state.pending_leaves[key], now_ms) + 1 if key in state.pending_leaves else now_ms
        )


def admit(state: State, guild_id: str, member: MirroredMember, now_ms: int) -> None:
    """Make a user of this server a member, unless they already are."""
    if member.user_id in state.members[guild_id]:
        return
    guild = state.guilds[guild_id]
    state.members[guild_id][member.user_id] = Membership(member.role, member.joined_at_ms)
    keep_timeout(state, guild_id, member)
    for channel in state.channels_of_guild(guild_id):
        channel.reads[member.user_id] = max(len(channel.events), channel.reads.get(member.user_id, 0))
    record = MemberRecord(guild_id, member.user_id, member.username, member.role, member.joined_at_ms)
    state.append(joined_guild(guild, record), sender=member.user_id, now_ms=now_ms)
    state.log(ControlKind.MEMBER_JOINED, guild_id=guild_id, user_id=member.user_id)


@performs(FindMirrorHead)
def find_mirror_head(state: State, effect: FindMirrorHead) -> LogPosition | None:
    mirror = state.mirrors.get(effect.log_id)
    if mirror is None or state.guilds[mirror.guild_id].origin != effect.origin:
        return None
    channel = state.channels.get(effect.log_id)
    if channel is not None:
        return LogPosition(effect.log_id, channel.record.epoch, len(channel.events))
    return state.place_of(effect.log_id)


@performs(DropMirror)
def drop_mirror(state: State, effect: DropMirror) -> bool:
    guild = state.guilds.get(effect.guild_id)
    if guild is not None and guild.origin == effect.origin:
        if effect.place not in {None, state.place_of(effect.guild_id)}:
            return False
        own = sorted(user for user in state.members[effect.guild_id] if state.users[user].origin is None)
        _tell_gone(state, effect.guild_id, own, effect.now_ms)
        drop(state, effect.guild_id)
    return True


def drop(state: State, guild_id: str) -> None:
    """Delete a mirrored guild with everything in it."""
    channels = state.channels_of_guild(guild_id)
    for channel in channels:
        drop_channel(state, channel)
        del state.mirrors[channel.record.channel_id]
    del state.guilds[guild_id], state.members[guild_id], state.logs[guild_id], state.mirrors[guild_id]
    state.epochs.pop(guild_id, None)
    state.ownerships.pop(guild_id, None)
    state.bans.pop(guild_id, None)
    state.timeouts.pop(guild_id, None)
    for code in [code for code, invite in state.invites.items() if invite.guild_id == guild_id]:
        del state.invites[code]
    for log_id in (guild_id, *(channel.record.channel_id for channel in channels)):
        state.histories.pop(log_id, None)
    body = channel_ids_body([channel.record.channel_id for channel in channels])
    state.log(ControlKind.GUILD_DELETED, guild_id=guild_id, body=body)


def _hash(text: str | None) -> bytes | None:
    return decode_unpadded(text) if text is not None else None
