"""Users of other servers as members of guilds of this server, in memory."""

from __future__ import annotations

from msgspec.structs import replace

from openguild_proto.effects.guilds import AcceptInvite
from openguild_proto.effects.mirrors import JoinFromServer, KnowRemoteUser, ReadSnapshot, RemoteJoin
from openguild_proto.effects.performs import performs
from openguild_proto.errors import ErrorCode, Refusal
from openguild_proto.memory.bans import bans_of
from openguild_proto.memory.guilds import accept_invite
from openguild_proto.memory.state import PeerGuild, State
from openguild_proto.mirror_records import MirroredChannel, MirroredMember, RemoteUser, Snapshot
from openguild_proto.records import Author, LimitReached, LogPosition, MemberRecord, UserRecord


@performs(JoinFromServer)
def join_from_server(state: State, effect: JoinFromServer) -> RemoteJoin | LimitReached | None:
    invite = state.invites.get(effect.code)
    if invite is None:
        return None
    known = state.users.get(effect.user.user_id)
    _know(state, effect.peer, effect.user, effect.now_ms)
    try:
        member = accept_invite(
            state,
            AcceptInvite(
                author=Author(effect.user.user_id),
                code=effect.code,
                role=effect.role,
                now_ms=effect.now_ms,
                limit=effect.limit,
            ),
        )
    except Refusal:
        _know_as_before(state, effect.user.user_id, known)
        raise
    if not isinstance(member, MemberRecord):
        if known is None:
            _know_as_before(state, effect.user.user_id, known)
        return member
    guild_id = member.guild_id
    begins = begin_mirror(state, effect.peer, guild_id, effect.now_ms)
    snapshot = _snapshot(state, guild_id) if effect.wants_snapshot or begins else None
    return RemoteJoin(guild_id, MirroredMember.of(member), state.place_of(guild_id), snapshot)


def _know_as_before(state: State, user_id: str, known: UserRecord | None) -> None:
    """Undo `_know` when nothing else is stored."""
    if known is not None:
        state.users[user_id] = known
    else:
        del state.users[user_id], state.logs[user_id]


def begin_mirror(state: State, peer: str, guild_id: str, now_ms: int) -> bool:
    """Let `peer` follow the guild's logs from their heads, or from its cursors if it has not purged them.

    Return False if it already follows them.
    """
    followed = state.peer_guilds.get((peer, guild_id))
    if followed is not None and followed.ended_at_ms is None:
        return False
    state.peer_guilds[peer, guild_id] = PeerGuild(now_ms)
    if (peer, guild_id) not in state.peer_cursors:
        for place in _heads(state, guild_id):
            state.peer_cursors[peer, place.log_id] = place
    return True


def _heads(state: State, guild_id: str) -> list[LogPosition]:
    channels = [channel.record for channel in state.channels_of_guild(guild_id)]
    heads = [LogPosition(each.channel_id, each.epoch, len(state.channels[each.channel_id].events)) for each in channels]
    return [state.place_of(guild_id), *heads]


@performs(ReadSnapshot)
def read_snapshot(state: State, effect: ReadSnapshot) -> Snapshot | None:
    followed = state.peer_guilds.get((effect.peer, effect.guild_id))
    if followed is None or followed.ended_at_ms is not None or effect.guild_id not in state.guilds:
        return None
    for place in _heads(state, effect.guild_id):
        cursor = state.peer_cursors.get((effect.peer, place.log_id))
        if cursor is not None and cursor.epoch != place.epoch:
            state.peer_cursors[effect.peer, place.log_id] = place
    return _snapshot(state, effect.guild_id)


@performs(KnowRemoteUser)
def know_remote_user(state: State, effect: KnowRemoteUser) -> None:
    if effect.user.user_id not in state.users:
        raise Refusal(ErrorCode.NOT_FOUND)
    _know(state, effect.peer, effect.user, effect.now_ms)


def _know(state: State, peer: str, user: RemoteUser, now_ms: int) -> None:
    known = state.users.get(user.user_id)
    if known is None:
        if state.has_log(user.user_id):
            raise Refusal(ErrorCode.ID_TAKEN)
        state.users[user.user_id] = UserRecord(
            user.user_id, user.username, "", now_ms, now_ms, display_name=user.display_name, origin=peer
        )
        state.logs[user.user_id] = []
    elif known.origin != peer:
        raise Refusal(ErrorCode.ID_TAKEN)
    else:
        state.users[user.user_id] = replace(known, username=user.username, display_name=user.display_name)


def _snapshot(state: State, guild_id: str) -> Snapshot:
    guild, place = state.guilds[guild_id], state.place_of(guild_id)
    term, serial = state.ownerships.get(guild_id, (1, 0))
    members = [
        MirroredMember(
            user_id,
            state.users[user_id].username,
            membership.role,
            membership.joined_at_ms,
            state.users[user_id].display_name,
            state.users[user_id].origin,
            state.timed_out_until(guild_id, user_id),
        )
        for user_id, membership in state.members[guild_id].items()
    ]
    channels = [
        MirroredChannel(
            channel.record.channel_id,
            channel.record.name,
            channel.record.created_at_ms,
            channel.record.epoch,
            len(channel.events),
            sum(sender != "" for sender in channel.senders),
            channel.record.topic,
            channel.record.position,
            {user_id: membership.role for user_id, membership in channel.roles.items()},
        )
        for channel in state.channels_of_guild(guild_id)
    ]
    return Snapshot(
        guild_id,
        guild.name,
        guild.created_at_ms,
        place.epoch,
        place.sequence,
        members,
        channels,
        term=term,
        serial=serial,
        bans=bans_of(state, guild_id),
    )
