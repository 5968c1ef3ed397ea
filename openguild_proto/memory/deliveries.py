"""Cursors of the peers that mirror guilds, and leases to deliver to them, in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from openguild_proto.effects.deliveries import (
    AffectedPeers,
    BehindLog,
    FindAffectedPeers,
    FindBehind,
    FindEnded,
    FindMirrored,
    FindMirroring,
    Leases,
    LeaveLeases,
    MirroredLog,
    MoveCursors,
    NotePurged,
    TakeLeases,
)
from openguild_proto.effects.federation import Standing
from openguild_proto.effects.performs import performs
from openguild_proto.memory.state import PeerGuild, State
from openguild_proto.records import LogPosition


@performs(FindBehind)
def find_behind(state: State, effect: FindBehind) -> tuple[BehindLog, ...]:
    found = [
        log
        for (peer, guild_id), mirrored in sorted(state.peer_guilds.items())
        if peer == effect.peer
        if not _is_denied(state, peer, guild_id)
        for log in _behind(state, peer, guild_id, mirrored, _logs_of(state, guild_id), level=effect.level)
        if effect.past is None or _order(log) > (effect.past[0], effect.past[0] != effect.past[1], effect.past[1])
    ]
    return tuple(found[: effect.limit])


def _order(log: BehindLog) -> tuple[str, bool, str]:
    return log.guild_id, not log.is_guild, log.log_id


def _logs_of(state: State, guild_id: str) -> list[str]:
    """Return the ids of the logs of a guild, its own first; empty if the guild is deleted."""
    if guild_id not in state.guilds:
        return []
    return [guild_id, *sorted(channel.record.channel_id for channel in state.channels_of_guild(guild_id))]


def _behind(
    state: State, peer: str, guild_id: str, mirrored: PeerGuild, log_ids: Iterable[str], *, level: bool = False
) -> Iterator[BehindLog]:
    if mirrored.purged_at_ms is not None:
        return
    for log_id in log_ids:
        head = _head(state, log_id)
        if head is None:
            continue
        cursor = state.peer_cursors.get((peer, log_id), LogPosition(log_id, head.epoch, 0))
        if mirrored.ended_at_ms is None:
            if level or cursor.sequence < head.sequence or cursor.epoch != head.epoch:
                yield BehindLog(guild_id, head, cursor.sequence, cursor.epoch)
        elif log_id == guild_id and cursor.sequence < (mirrored.last_sequence or 0):
            last = LogPosition(log_id, head.epoch, mirrored.last_sequence or 0)
            yield BehindLog(guild_id, last, cursor.sequence, cursor.epoch, ends=True)


def _is_denied(state: State, peer: str, guild_id: str) -> bool:
    known = state.peers.get(peer)
    rulings = known.rulings if known is not None else ()
    return any(ruling.guild_id == guild_id and ruling.standing is Standing.DENY for ruling in rulings)


def _head(state: State, log_id: str) -> LogPosition | None:
    channel = state.channels.get(log_id)
    if channel is not None:
        return LogPosition(log_id, channel.record.epoch, len(channel.events))
    return state.place_of(log_id) if log_id in state.logs else None


@performs(FindAffectedPeers)
def find_affected_peers(state: State, effect: FindAffectedPeers) -> AffectedPeers:
    guild_of = {}
    for log_id in effect.log_ids:
        channel = state.channels.get(log_id)
        if channel is not None or log_id in state.guilds:
            guild_of[log_id] = channel.record.guild_id if channel is not None else log_id
    behind: list[tuple[str, BehindLog]] = []
    mirrored: set[str] = set()
    ended: set[str] = set()
    elsewhere = free = False
    for (peer, guild_id), row in sorted(state.peer_guilds.items()):
        grown = sorted(log_id for log_id, of in guild_of.items() if of == guild_id and log_id != guild_id)
        is_gone = guild_id in effect.log_ids and guild_id not in state.guilds and row.ended_at_ms is not None
        if not (is_gone or guild_id in guild_of.values()) or row.purged_at_ms is not None:
            continue
        mirrored.update({guild_id} if is_gone else (log_id for log_id, of in guild_of.items() if of == guild_id))
        if state.leases.get(peer, ("", 0))[0] != effect.holder:
            elsewhere, free = True, free or peer not in state.leases
            continue
        if is_gone:
            ended.add(peer)
            continue
        if not _is_denied(state, peer, guild_id):
            behind += [(peer, log) for log in _behind(state, peer, guild_id, row, (guild_id, *grown))]
    return AffectedPeers(tuple(behind), tuple(sorted(mirrored)), elsewhere, free, tuple(sorted(ended)))


@performs(MoveCursors)
def move_cursors(state: State, effect: MoveCursors) -> None:
    for move in effect.moves:
        if _mirrored(state, move.peer, move.place.log_id) is not None:
            state.peer_cursors[move.peer, move.place.log_id] = move.place


@performs(FindMirrored)
def find_mirrored(state: State, effect: FindMirrored) -> MirroredLog | None:
    mirrored, head = _mirrored(state, effect.peer, effect.log_id), _head(state, effect.log_id)
    if mirrored is None or mirrored.ended_at_ms is not None or head is None:
        return None
    channel = state.channels.get(effect.log_id)
    return MirroredLog(channel.record.guild_id if channel is not None else effect.log_id, head)


def _mirrored(state: State, peer: str, log_id: str) -> PeerGuild | None:
    """Return the peer's entry for the log's guild, or None if there is none or it is purged."""
    channel = state.channels.get(log_id)
    guild_id = channel.record.guild_id if channel is not None else log_id
    mirrored = state.peer_guilds.get((peer, guild_id)) if guild_id in state.guilds else None
    return mirrored if mirrored is not None and mirrored.purged_at_ms is None else None


# --- the end of a mirror ---------------------------------------------------------------------------


def end_mirror(state: State, guild_id: str, user_id: str, *, last_sequence: int, now_ms: int) -> None:
    """Record that the user's server must purge its mirror, if they were its last member. `last_sequence`: of their removal."""
    peer = state.users[user_id].origin if user_id in state.users else None
    mirrored = state.peer_guilds.get((peer, guild_id)) if peer is not None else None
    if mirrored is None or mirrored.ended_at_ms is not None:
        return
    if not any(state.users[other].origin == peer for other in state.members[guild_id]):
        mirrored.ended_at_ms, mirrored.last_sequence = now_ms, last_sequence


def end_mirrors(state: State, guild_id: str) -> None:
    """Record that every mirror of a deleted guild must be purged. Deletes its cursors."""
    for (_, of), mirrored in state.peer_guilds.items():
        if of == guild_id:
            mirrored.ended_at_ms, mirrored.last_sequence = mirrored.ended_at_ms or 0, None
    drop_cursors(state, {guild_id})


def drop_cursors(state: State, log_ids: set[str]) -> None:
    """Delete the cursors and receipt chains of deleted logs."""
    for peer, log_id in [key for key in state.peer_cursors if key[1] in log_ids]:
        del state.peer_cursors[peer, log_id]
    for log_id in log_ids:
        state.chains.pop(log_id, None)


@performs(FindMirroring)
def find_mirroring(state: State, effect: FindMirroring) -> tuple[str, ...]:
    return tuple(sorted({peer for (peer, _), row in state.peer_guilds.items() if row.purged_at_ms is None}))


@performs(FindEnded)
def find_ended(state: State, effect: FindEnded) -> tuple[LogPosition, ...]:
    return tuple(
        LogPosition(guild_id, state.place_of(guild_id).epoch if guild_id in state.guilds else 0, row.last_sequence or 0)
        for (peer, guild_id), row in sorted(state.peer_guilds.items())
        if peer == effect.peer
        and row.ended_at_ms is not None
        and row.purged_at_ms is None
        and not any(_behind(state, peer, guild_id, row, (guild_id,)))
    )


@performs(NotePurged)
def note_purged(state: State, effect: NotePurged) -> None:
    for guild_id in effect.guild_ids:
        row = state.peer_guilds.get((effect.peer, guild_id))
        if row is None or row.ended_at_ms is None or row.ended_at_ms > effect.now_ms or row.purged_at_ms is not None:
            continue
        row.purged_at_ms = effect.now_ms
        for log_id in _logs_of(state, guild_id):
            state.peer_cursors.pop((effect.peer, log_id), None)


# --- leases ----------------------------------------------------------------------------------------


@performs(TakeLeases)
def take_leases(state: State, effect: TakeLeases) -> Leases:
    state.lease_holders[effect.holder] = effect.until_ms
    free = [peer for peer in effect.others if _is_free(state, peer, effect)]
    taken = [
        peer
        for peer in sorted({*effect.peers, *free[: effect.at_most]})
        if peer in free or _is_free(state, peer, effect)
    ]
    state.leases |= dict.fromkeys(taken, (effect.holder, effect.until_ms))
    return Leases(tuple(taken), sum(_lasts(until_ms, effect) for until_ms in state.lease_holders.values()))


def _is_free(state: State, peer: str, effect: TakeLeases) -> bool:
    holder, until_ms = state.leases.get(peer, (effect.holder, 0))
    return holder == effect.holder or not _lasts(until_ms, effect)


def _lasts(until_ms: int, effect: TakeLeases) -> bool:
    return effect.now_ms <= until_ms <= effect.latest_ms


@performs(LeaveLeases)
def leave_leases(state: State, effect: LeaveLeases) -> None:
    if effect.peers is None:
        state.lease_holders.pop(effect.holder, None)
    state.leases = {
        peer: lease
        for peer, lease in state.leases.items()
        if lease[0] != effect.holder or (effect.peers is not None and peer not in effect.peers)
    }
