"""Takes over guilds of other servers with their history, in memory (PROTOCOL 16.10)."""

from __future__ import annotations

from msgspec.structs import replace

from openguild_proto.effects.channels import AppendEvent
from openguild_proto.effects.handovers import AbsorbHistory, FindCopies, LogCopy, StageHistory, TakeGuild
from openguild_proto.effects.logs import FindLogHead
from openguild_proto.effects.mirrors import FORKED, NOT_OURS
from openguild_proto.effects.performs import performs
from openguild_proto.memory.appends import append_event
from openguild_proto.memory.channels import drop_events
from openguild_proto.memory.handovers import keep_handover
from openguild_proto.memory.logs import find_log_head
from openguild_proto.memory.state import Channel, Mirror, PeerGuild, State
from openguild_proto.mirror_records import MirroredEvent, TransferredLog
from openguild_proto.records import NOBODY, ControlKind, InviteRecord, LogPosition, StoredEvent
from openguild_proto.schemas.event_effects import as_kept, effect_of_event
from openguild_proto.schemas.events import parse_content, parse_event
from openguild_proto.schemas.log_entries import guild_moved


@performs(FindCopies)
def find_copies(state: State, effect: FindCopies) -> tuple[LogCopy, ...] | None:
    guild = state.guilds.get(effect.guild_id)
    if guild is None or guild.origin != effect.owner:
        return None
    return tuple(_copy(state, log_id) for log_id in _logs(state, effect.guild_id))


def _logs(state: State, guild_id: str) -> list[str]:
    return [guild_id, *(channel.record.channel_id for channel in state.channels_of_guild(guild_id))]


def _places(state: State, guild_id: str) -> list[LogPosition]:
    places = [find_log_head(state, FindLogHead(log_id)) for log_id in _logs(state, guild_id)]
    return [place for place in places if place is not None]


def _copy(state: State, log_id: str) -> LogCopy:
    place, mirror = find_log_head(state, FindLogHead(log_id)) or LogPosition(log_id, 0, 0), state.mirrors[log_id]
    return LogCopy(log_id, place.epoch, place.sequence, mirror.base, _copied(state, log_id))


def _copied(state: State, log_id: str) -> int:
    staged = state.histories.get(log_id)
    return staged[-1].event.sequence if staged else state.mirrors[log_id].copied


def _mirror(state: State, owner: str, log_id: str) -> Mirror | None:
    mirror = state.mirrors.get(log_id)
    return mirror if mirror is not None and state.guilds[mirror.guild_id].origin == owner else None


@performs(StageHistory)
def stage_history(state: State, effect: StageHistory) -> str | None:
    mirror = _mirror(state, effect.owner, effect.log_id)
    if mirror is None:
        return None
    stored = state.events_of(effect.log_id) or []
    senders = {line.event.sender_id for line in effect.events}
    own = {user_id for user_id in senders if (user := state.users.get(user_id)) is not None and user.origin is None}
    kept = as_kept((line.event for line in effect.events), own)
    if kept is None:
        return NOT_OURS
    for event in kept:
        if mirror.base < event.sequence <= len(stored) and stored[event.sequence - 1].event_id != event.event_id:
            return FORKED
    for line, event in zip(effect.events, kept, strict=True):
        if event.sequence == _copied(state, effect.log_id) + 1:
            state.histories.setdefault(effect.log_id, []).append(replace(line, event=event))
    return None


@performs(AbsorbHistory)
def absorb_history(state: State, effect: AbsorbHistory) -> None:
    mirror, staged = _mirror(state, effect.owner, effect.log_id), state.histories.get(effect.log_id, [])
    if mirror is None or _copied(state, effect.log_id) < mirror.base:
        return
    channel = state.channels.get(effect.log_id)
    if mirror.base and channel is not None:
        _rebuild(state, channel, [line.event for line in staged])
        channel.record = replace(channel.record, base_sequence=0)
    elif mirror.base:
        log = state.logs[effect.log_id]
        log[: mirror.base] = [_stored(effect.log_id, line.event) for line in staged[: mirror.base]]
    mirror.copied, mirror.base = _copied(state, effect.log_id), 0
    state.histories.pop(effect.log_id, None)
    for line in staged:
        if channel is not None and line.nonce is not None:
            channel.nonces[line.event.sender_id, line.nonce] = (line.fingerprint, line.event.sequence)


def _stored(log_id: str, event: MirroredEvent) -> StoredEvent:
    return StoredEvent(log_id, event.sequence, event.event_id, event.wire, event.at_ms)


def _rebuild(state: State, channel: Channel, history: list[MirroredEvent]) -> None:
    """Rewrite the log from its first event on. The events after `history` are already here."""
    log_id, later, mentions = channel.record.channel_id, channel.events[len(history) :], channel.mentions
    drop_events(state, channel)
    again = Channel(channel.record)
    for name in ("events", "nonces", "senders", "messages", "mentions", "edits", "strays", "reactions"):
        setattr(channel, name, getattr(again, name))
    for event in (*history, *(_again(event) for event in later)):
        append_event(
            state,
            AppendEvent(
                author=None, channel_id=log_id, sender_id=event.sender_id, event_id=event.event_id,
                event_type=event.event_type, wire=event.wire, nonce=None, fingerprint=b"", now_ms=event.at_ms,
                change=event.change, mentions=NOBODY, redacted_by=event.redacted_by,
            ),
        )  # fmt: skip
    channel.mentions = mentions  # messages from before the mirror notify nobody


def _again(event: StoredEvent) -> MirroredEvent:
    parsed = parse_event(event.wire)
    said = effect_of_event(parsed, parse_content(parsed))
    return MirroredEvent(
        event.sequence, event.event_id, parsed.event_type, parsed.sender, event.wire, event.created_at_ms,
        said.change, said.mentions, said.redacted_by,
    )  # fmt: skip


@performs(TakeGuild)
def take_guild(state: State, effect: TakeGuild) -> bool:
    handover = effect.handover
    guild_id = handover.guild_id
    guild, term = state.guilds.get(guild_id), state.ownerships.get(guild_id, (1, 0))[0]
    if guild is not None and guild.origin is None and term == handover.term:
        return True  # by this statement, because an owner issues one per term
    if guild is None:
        return False
    is_owned = guild.origin is None and term < handover.term
    if not is_owned and (guild.origin != handover.owner or term + 1 != handover.term):
        return False
    copies = [_copy(state, log_id) for log_id in _logs(state, guild_id) if log_id in state.mirrors]
    if effect.logs is not None and not _is_whole(copies, effect.logs):
        return False
    former = [replace(place, sequence=0) for place in _places(state, guild_id)]
    state.guilds[guild_id] = replace(guild, origin=None)
    for copy in copies:
        if copy.base:
            state.bases[copy.log_id] = copy.base
        del state.mirrors[copy.log_id]
        state.histories.pop(copy.log_id, None)
    for channel in state.channels_of_guild(guild_id):
        base = state.bases.get(channel.record.channel_id)
        channel.record = replace(channel.record, origin=None, epoch=effect.epoch, base_sequence=base)
    state.epochs[guild_id] = effect.epoch
    for key in [key for key in state.pending_leaves if key[:2] == (handover.owner, guild_id)]:
        del state.pending_leaves[key]
    for each in effect.former:
        state.handovers.setdefault(guild_id, {}).setdefault(each.term, each)
    keep_handover(state, handover)
    for peer in sorted({state.users[user_id].origin or "" for user_id in state.members[guild_id]} - {""}):
        state.peer_guilds[peer, guild_id] = PeerGuild(effect.now_ms)
        for place in former:
            state.peer_cursors[peer, place.log_id] = place
    if not is_owned:  # some of the invites from an earlier term may be revoked by now
        for code in [code for code, invite in state.invites.items() if invite.guild_id == guild_id]:
            del state.invites[code]
    for invite in effect.invites:
        if invite.created_by in state.users and invite.code not in state.invites:
            state.invites[invite.code] = InviteRecord(
                invite.code, guild_id, guild.name, invite.max_uses, invite.uses, invite.expires_at_ms, invite.created_by,
                invite.created_at_ms,
            )  # fmt: skip
    state.append(guild_moved(handover), sender=None, now_ms=effect.now_ms)
    state.log(ControlKind.LOGS_RENEWED, guild_id=guild_id)
    return True


def _is_whole(copies: list[LogCopy], logs: tuple[TransferredLog, ...]) -> bool:
    here = {(copy.log_id, copy.epoch, copy.head) for copy in copies if copy.base == 0 and copy.copied == copy.head}
    return here == {(log.log_id, log.epoch, log.sequence) for log in logs} and len(here) == len(copies)
