"""Events of other servers' logs in memory: appended at their sequences, with their effects (PROTOCOL 16.8)."""

from __future__ import annotations

from openguild_proto.canonical.receipts import chain_over
from openguild_proto.effects.channels import Appended, AppendEvent
from openguild_proto.effects.mirrors import ANOTHER, FORKED, NOT_OURS, REPEATED, MirrorEvents, MirrorOutcome
from openguild_proto.effects.performs import performs
from openguild_proto.errors import LocalProtocolError
from openguild_proto.memory.appends import append_event
from openguild_proto.memory.bans import drop_ban, keep_ban
from openguild_proto.memory.channels import drop_channel
from openguild_proto.memory.guilds import end_lost_rights
from openguild_proto.memory.mirrors import (
    add_channel,
    add_roles,
    drop,
    home_of,
    keep_timeout,
    know_user,
    may_have_role,
    note_mistaken,
)
from openguild_proto.memory.state import Channel, Membership, State
from openguild_proto.mirror_records import MirroredChannel, MirroredEvent, MirroredMember
from openguild_proto.policy.bans import may_mirror_ban
from openguild_proto.policy.channels import creator_role
from openguild_proto.policy.invites import invite_id
from openguild_proto.records import ControlKind, LogPosition, Redact, StoredEvent
from openguild_proto.schemas.event_effects import as_kept, ban_told
from openguild_proto.schemas.events import parse_content, parse_event
from openguild_proto.schemas.log_contents import (
    ChannelCreatedContent,
    ChannelDeletedContent,
    ChannelRoleSetContent,
    ChannelUpdatedContent,
    GuildSuccessorSetContent,
    GuildUpdatedContent,
    InviteDeletedContent,
    MemberBannedContent,
    MemberJoinedContent,
    MemberLeftContent,
    MemberRemovedContent,
    MemberRoleSetContent,
    MemberTimedOutContent,
    MemberUnbannedContent,
)
from openguild_proto.schemas.log_entries import left_guild
from openguild_proto.schemas.payloads import channel_body
from openguild_proto.timestamps import to_millis


@performs(MirrorEvents)
def mirror_events(state: State, effect: MirrorEvents) -> MirrorOutcome:
    mirror = state.mirrors.get(effect.log_id)
    guild = state.guilds.get(effect.guild_id)
    if mirror is None or guild is None or mirror.guild_id != effect.guild_id or guild.origin != effect.origin:
        return MirrorOutcome("unknown")
    channel = state.channels.get(effect.log_id)
    head = len(channel.events) if channel is not None else len(state.logs[effect.log_id])
    epoch = channel.record.epoch if channel is not None else state.place_of(effect.log_id).epoch
    place = LogPosition(effect.log_id, epoch, head)
    if epoch != effect.epoch:
        return MirrorOutcome("epoch", place)
    here = state.events_of(effect.log_id) or []
    known = [(here[event.sequence - 1].event_id, event.event_id) for event in effect.events if event.sequence <= head]
    if any(ours not in {"", theirs} for ours, theirs in known):  # "": an event from before the mirror
        return MirrorOutcome("refused", place, reason=ANOTHER)
    fresh = [event for event in effect.events if event.sequence > head]
    if not fresh or fresh[0].sequence != head + 1:
        return MirrorOutcome("ok", place)
    if any(event.event_id in state.event_places for event in fresh):
        return MirrorOutcome("refused", place, reason=REPEATED)
    kept = as_kept(fresh, {event.sender_id for event in fresh if _is_own(state, event.sender_id)})
    if kept is None:
        return MirrorOutcome("refused", place, reason=NOT_OURS)
    fresh = kept
    if mirror.chain is not None:
        links = ((event.sequence, event.event_id) for event in fresh)
        chain = chain_over(mirror.chain, effect.log_id, epoch, links)
        if effect.chain is not None and chain != effect.chain:
            return MirrorOutcome("refused", place, reason=FORKED)
        mirror.chain, mirror.receipt = chain, effect.receipt
    if channel is not None:
        stored = tuple(_append(state, channel, event) for event in fresh)
    else:
        stored = tuple(StoredEvent(effect.log_id, e.sequence, e.event_id, e.wire, e.at_ms) for e in fresh)
        for event, line in zip(fresh, stored, strict=True):
            state.logs[effect.log_id].append(line)
            state.grown.append(line)
            if _apply(state, effect.origin, effect.guild_id, event):
                drop(state, effect.guild_id)
                return MirrorOutcome("ok", LogPosition(effect.log_id, epoch, event.sequence), ended=True)
    return MirrorOutcome(
        "ok", LogPosition(effect.log_id, epoch, fresh[-1].sequence), stored if channel is not None else ()
    )


def _is_own(state: State, user_id: str) -> bool:
    return user_id in state.users and state.users[user_id].origin is None


def _append(state: State, channel: Channel, event: MirroredEvent) -> StoredEvent:
    if isinstance(event.change, Redact):
        _unstage(state, channel.record.channel_id, event.change.target)
    appended = append_event(
        state,
        AppendEvent(
            author=None,
            channel_id=channel.record.channel_id,
            sender_id=event.sender_id,
            event_id=event.event_id,
            event_type=event.event_type,
            wire=event.wire,
            nonce=None,
            fingerprint=b"",
            now_ms=event.at_ms,
            change=event.change,
            mentions=event.mentions,
            redacted_by=event.redacted_by,
        ),
    )
    if not isinstance(appended, Appended):
        raise LocalProtocolError("an event that another server has decided is stored")
    return appended.event


def _unstage(state: State, log_id: str, target: str) -> None:
    """Drop the staged history from a redacted message on, so that it is copied again."""
    staged = state.histories.get(log_id, [])
    at = next((at for at, line in enumerate(staged) if line.event.event_id == target), len(staged))
    del staged[at:]


def _apply(state: State, origin: str, guild_id: str, event: MirroredEvent) -> bool:
    """Apply an event of the guild's log. Return True if no user of this server is a member any more."""
    guild, members = state.guilds[guild_id], state.members[guild_id]
    match parse_content(parse_event(event.wire)):
        case GuildUpdatedContent(name=name):
            state.guilds[guild_id] = type(guild)(guild_id, name, guild.created_at_ms, guild.origin)
        case GuildSuccessorSetContent(serial=serial):
            term, known = state.ownerships.get(guild_id, (1, 0))
            state.ownerships[guild_id] = (term, max(known, serial))
        case ChannelCreatedContent(channel_id=channel_id, name=name, topic=topic, position=position):
            if channel_id not in state.channels:
                line = MirroredChannel(channel_id, name, event.at_ms, 1, 0, 0, topic, position)
                role = creator_role(state.guild_role(guild_id, event.sender_id))
                if role is not None:
                    line.roles[event.sender_id] = role
                made = add_channel(state, origin, guild_id, line)
                add_roles(state, line)
                _created(state, made)
        case ChannelUpdatedContent(channel_id=channel_id, name=name, topic=topic, position=position):
            channel = _channel(state, guild_id, channel_id)
            if channel is not None:
                record = channel.record
                channel.record = type(record)(
                    channel_id, guild_id, name, record.created_at_ms, topic, position, record.epoch, origin,
                    record.base_sequence,
                )  # fmt: skip
        case ChannelDeletedContent(channel_id=channel_id):
            channel = _channel(state, guild_id, channel_id)
            if channel is not None:
                drop_channel(state, channel)
                del state.mirrors[channel_id]
                state.log(ControlKind.CHANNEL_DELETED, guild_id=guild_id, channel_id=channel_id)
        case ChannelRoleSetContent(channel_id=channel_id, user_id=user_id, role=role):
            channel = _channel(state, guild_id, channel_id)
            if channel is not None and may_have_role(state, guild_id, user_id):
                channel.roles[user_id] = Membership(role, event.at_ms)
                state.log(ControlKind.ACCESS_CHANGED, guild_id=guild_id, channel_id=channel_id, user_id=user_id)
        case MemberJoinedContent() as joined:
            member = MirroredMember(
                joined.user_id,
                joined.username,
                joined.role,
                event.at_ms,
                joined.display_name,
                joined.origin,
                to_millis(joined.timed_out_until) if joined.timed_out_until is not None else None,
            )
            home = home_of(state, origin, joined.origin)
            if home is None:
                note_mistaken(state, origin, guild_id, joined.user_id, event.at_ms)
            elif know_user(state, member, home, origin, event.at_ms):
                members[joined.user_id] = Membership(joined.role, event.at_ms)
                keep_timeout(state, guild_id, member)
                state.log(ControlKind.MEMBER_JOINED, guild_id=guild_id, user_id=joined.user_id)
        case MemberRoleSetContent(user_id=user_id, role=role) if user_id in members:
            held, members[user_id].role = members[user_id].role, role
            end_lost_rights(state, guild_id, user_id, held, role)
            state.log(ControlKind.MEMBER_CHANGED, guild_id=guild_id, user_id=user_id)
        case MemberTimedOutContent(user_id=user_id, until=until) if user_id in members:
            timeouts = state.timeouts.setdefault(guild_id, {})
            if until is None:
                timeouts.pop(user_id, None)
            else:
                timeouts[user_id] = to_millis(until) or 0
            state.log(ControlKind.MEMBER_CHANGED, guild_id=guild_id, user_id=user_id)
        case InviteDeletedContent(invite_id=ended):
            for code in [invite.code for invite in state.invites.values() if invite.guild_id == guild_id]:
                if invite_id(code) == ended:
                    del state.invites[code]
        case MemberBannedContent() as content if (ban := ban_told(event, content)) is not None:
            if may_mirror_ban(len(state.bans.get(guild_id, {}))):
                keep_ban(state, guild_id, ban)
            if ban.user_id not in members:
                end_lost_rights(state, guild_id, ban.user_id, None, None)
                state.log(ControlKind.ACCESS_CHANGED, guild_id=guild_id, user_id=ban.user_id)
        case MemberUnbannedContent(user_id=user_id):
            drop_ban(state, guild_id, user_id)
        case MemberLeftContent(user_id=user_id) | MemberRemovedContent(user_id=user_id) as gone if user_id in members:
            end_lost_rights(state, guild_id, user_id, members[user_id].role, None)
            del members[user_id]
            if state.users[user_id].origin is None:
                removed = isinstance(gone, MemberRemovedContent)
                reason = gone.reason if isinstance(gone, MemberRemovedContent) else None
                entries = left_guild(guild_id, user_id, removed=removed, reason=reason)
                state.append(entries, sender=event.sender_id, now_ms=event.at_ms)
            state.log(ControlKind.MEMBER_REMOVED, guild_id=guild_id, user_id=user_id)
            return not any(state.users[member].origin is None for member in members)
    return False


def _created(state: State, channel: Channel) -> None:
    record = channel.record
    state.log(
        ControlKind.CHANNEL_CREATED,
        guild_id=record.guild_id,
        channel_id=record.channel_id,
        body=channel_body(record),
    )


def _channel(state: State, guild_id: str, channel_id: str) -> Channel | None:
    channel = state.channels.get(channel_id)
    return channel if channel is not None and channel.record.guild_id == guild_id else None
