"""Owners of guilds, and handing guilds over, in memory (PROTOCOL 16.10). Taking over is in takeovers.py."""

from __future__ import annotations

from collections import Counter

from msgspec.structs import replace

from openguild_proto.effects.federation import Peer
from openguild_proto.effects.handovers import (
    BeginMove,
    EndMove,
    FindOwnership,
    FindSilentOwners,
    FindSuccession,
    FollowHandover,
    HandOver,
    HistoryLine,
    ListHandovers,
    ListMoves,
    LogHistory,
    Move,
    NoteMove,
    ReadLogHistory,
    ReadTransferred,
    SetSuccessor,
    SilentOwner,
    TransferredGuild,
)
from openguild_proto.effects.logs import FindLogHead
from openguild_proto.effects.performs import performs
from openguild_proto.errors import ErrorCode, Refusal
from openguild_proto.memory.authority import require_in_guild
from openguild_proto.memory.logs import find_log_head
from openguild_proto.memory.state import Mirror, State
from openguild_proto.mirror_records import Handover, Ownership, TransferredInvite, TransferredLog
from openguild_proto.policy.members import OWNER
from openguild_proto.policy.moves import BEHIND, LOST, MOVING, NO_GUILD, NO_MEMBER, NOT_MOVING
from openguild_proto.policy.permissions import Permission
from openguild_proto.schemas.log_entries import successor_set


@performs(FindOwnership)
def find_ownership(state: State, effect: FindOwnership) -> Ownership | None:
    guild = state.guilds.get(effect.guild_id)
    if guild is None:
        return None
    has_members = any(state.users[user_id].origin is None for user_id in state.members[effect.guild_id])
    return Ownership(effect.guild_id, guild.origin, *state.ownerships.get(effect.guild_id, (1, 0)), has_members)


@performs(FindSilentOwners)
def find_silent_owners(state: State, effect: FindSilentOwners) -> tuple[SilentOwner, ...]:
    guilds = Counter(guild.origin for guild in state.guilds.values() if guild.origin is not None)
    silent = [
        SilentOwner(server, count)
        for server, count in guilds.items()
        if (state.peers.get(server) or Peer(server)).contacted_ms < effect.before_ms
    ]
    return tuple(sorted(silent, key=lambda owner: (-owner.guilds, owner.server))[: effect.limit])


@performs(ListHandovers)
def list_handovers(state: State, effect: ListHandovers) -> tuple[Handover, ...]:
    known = state.handovers.get(effect.guild_id, {})
    return tuple(known[term] for term in sorted(known))


@performs(FollowHandover)
def follow_handover(state: State, effect: FollowHandover) -> bool:
    handover = effect.handover
    guild_id, here = handover.guild_id, state.writer.server_name
    guild = state.guilds.get(guild_id)
    term, _ = state.ownerships.get(guild_id, (1, 0))
    former = None if handover.owner == here else handover.owner
    if guild is None or guild.origin != former or handover.to == here or term + 1 != handover.term:
        return False
    if guild.origin is None:
        become_mirror(state, handover)
        state.moves.pop(guild_id, None)
    else:
        _set_origin(state, guild_id, handover.to)
        for origin, of, user_id in [key for key in state.pending_leaves if key[:2] == (handover.owner, guild_id)]:
            state.pending_leaves[handover.to, of, user_id] = state.pending_leaves.pop((origin, of, user_id))
    keep_handover(state, handover)
    return True


def keep_handover(state: State, handover: Handover) -> None:
    """Store a followed statement and the owner's term."""
    state.handovers.setdefault(handover.guild_id, {})[handover.term] = handover
    _, serial = state.ownerships.get(handover.guild_id, (1, 0))
    state.ownerships[handover.guild_id] = (handover.term, serial)
    state.successions.pop(handover.guild_id, None)


def become_mirror(state: State, handover: Handover) -> None:
    """Make a guild of this server a mirror. Nothing more is delivered to other servers, except what they must purge."""
    guild_id = handover.guild_id
    log_ids = [guild_id, *(channel.record.channel_id for channel in state.channels_of_guild(guild_id))]
    for log_id in log_ids:
        state.mirrors[log_id] = Mirror(guild_id, state.bases.pop(log_id, 0))
    _set_origin(state, guild_id, handover.to)
    for (peer, of), row in list(state.peer_guilds.items()):
        if of == guild_id and row.ended_at_ms is None:
            del state.peer_guilds[peer, of]
        elif of == guild_id:
            row.last_sequence = None
    for key in [key for key in state.peer_cursors if key[1] in log_ids]:
        del state.peer_cursors[key]


def _set_origin(state: State, guild_id: str, origin: str) -> None:
    state.guilds[guild_id] = replace(state.guilds[guild_id], origin=origin)
    for channel in state.channels_of_guild(guild_id):
        base = state.mirrors[channel.record.channel_id].base
        channel.record = replace(channel.record, origin=origin, base_sequence=base)


# --- a successor -----------------------------------------------------------------------------------


@performs(SetSuccessor)
def set_successor(state: State, effect: SetSuccessor) -> bool:
    require_in_guild(state, effect.author, effect.guild_id, Permission.READ)
    if state.guild_role(effect.guild_id, effect.author.user_id) != OWNER:
        raise Refusal(ErrorCode.FORBIDDEN)
    term, serial = state.ownerships.get(effect.guild_id, (1, 0))
    if effect.serial <= serial:
        return False
    state.ownerships[effect.guild_id] = (term, effect.serial)
    if effect.handover is not None:
        state.successions[effect.guild_id] = effect.handover
    else:
        state.successions.pop(effect.guild_id, None)
    entries = successor_set(effect.guild_id, effect.handover.to if effect.handover is not None else None, effect.serial)
    state.append(entries, sender=effect.author.user_id, now_ms=effect.now_ms)
    return True


@performs(FindSuccession)
def find_succession(state: State, effect: FindSuccession) -> Handover | None:
    return state.successions.get(effect.guild_id)


# --- moving ----------------------------------------------------------------------------------------


@performs(BeginMove)
def begin_move(state: State, effect: BeginMove) -> str | None:
    guild, move = state.guilds.get(effect.guild_id), state.moves.get(effect.guild_id)
    if move is not None:
        return None if move.to == effect.to else MOVING
    if guild is None or guild.origin is not None:
        return NO_GUILD
    row = state.peer_guilds.get((effect.to, effect.guild_id))
    if row is None or row.ended_at_ms is not None:
        return NO_MEMBER
    channels = state.channels_of_guild(effect.guild_id)
    if any(map(state.base_of, (effect.guild_id, *(channel.record.channel_id for channel in channels)))):
        return LOST
    state.moves[effect.guild_id] = Move(effect.guild_id, effect.to, effect.now_ms)
    return None


@performs(EndMove)
def end_move(state: State, effect: EndMove) -> bool:
    move = state.moves.get(effect.guild_id)
    if move is None or (move.handover is not None and not effect.done):
        return False
    del state.moves[effect.guild_id]
    return True


@performs(NoteMove)
def note_move(state: State, effect: NoteMove) -> None:
    move = state.moves.get(effect.guild_id)
    if move is not None:
        state.moves[effect.guild_id] = replace(move, note=effect.note)


@performs(ListMoves)
def list_moves(state: State, effect: ListMoves) -> tuple[Move, ...]:
    return tuple(state.moves[guild_id] for guild_id in sorted(state.moves))


@performs(HandOver)
def hand_over(state: State, effect: HandOver) -> str | None:
    handover = effect.handover
    guild_id, move = handover.guild_id, state.moves.get(handover.guild_id)
    guild = state.guilds.get(guild_id)
    if guild is None or guild.origin is not None or state.ownerships.get(guild_id, (1, 0))[0] + 1 != handover.term:
        return NO_GUILD
    if move is None or move.to != handover.to or move.handover is not None:
        return NOT_MOVING
    row = state.peer_guilds.get((handover.to, guild_id))
    if row is None or row.ended_at_ms is not None:
        return NO_MEMBER
    if state.place_of(guild_id).sequence != effect.sequence:
        return BEHIND
    become_mirror(state, handover)
    keep_handover(state, handover)
    state.moves[guild_id] = replace(move, handover=handover)
    return None


@performs(ReadTransferred)
def read_transferred(state: State, effect: ReadTransferred) -> TransferredGuild:
    if effect.guild_id not in state.guilds:
        return TransferredGuild((), ())
    channels = state.channels_of_guild(effect.guild_id)
    places = [
        state.place_of(effect.guild_id),
        *(find_log_head(state, FindLogHead(channel.record.channel_id)) for channel in channels),
    ]
    return TransferredGuild(
        tuple(TransferredLog(place.log_id, place.epoch, place.sequence) for place in places if place is not None),
        tuple(
            TransferredInvite(
                invite.code,
                invite.created_by,
                invite.created_at_ms,
                invite.uses,
                invite.max_uses,
                invite.expires_at_ms,
            )
            for invite in state.invites.values()
            if invite.guild_id == effect.guild_id
        ),
    )


@performs(ReadLogHistory)
def read_history(state: State, effect: ReadLogHistory) -> LogHistory | None:
    channel = state.channels.get(effect.log_id)
    guild_id = channel.record.guild_id if channel is not None else effect.log_id
    move, place = state.moves.get(guild_id), find_log_head(state, FindLogHead(effect.log_id))
    if move is None or move.to != effect.peer or place is None:
        return None
    nonces = {sequence: (nonce, mark) for (_, nonce), (mark, sequence) in channel.nonces.items()} if channel else {}
    events = (state.events_of(effect.log_id) or [])[effect.after : effect.after + effect.limit]
    lines = [
        HistoryLine(event.sequence, event.wire, event.created_at_ms, *nonces.get(event.sequence, (None, b"")))
        for event in events
        if event.event_id
    ]
    return LogHistory(guild_id, place.epoch, place.sequence, tuple(lines))
