"""Channels, reading their logs, and read positions in memory. Appending is in appends.py."""

from __future__ import annotations

from itertools import islice

import msgspec

from openguild_proto.effects.channels import (
    DeleteChannel,
    FindChannelAccess,
    FindPosted,
    InsertChannel,
    ListChannels,
    ListUnread,
    MarkRead,
    PageBounds,
    Posted,
    ReadEvents,
    UpdateChannel,
)
from openguild_proto.effects.performs import performs
from openguild_proto.effects.roles import GrantChannelRole
from openguild_proto.errors import LocalProtocolError
from openguild_proto.event_page import EventPage
from openguild_proto.limits import MAX_COUNTED_MENTIONS
from openguild_proto.memory.authority import require_in_channel, require_in_guild, roles_now
from openguild_proto.memory.deliveries import drop_cursors
from openguild_proto.memory.mentions import is_mentioned
from openguild_proto.memory.paging import page_after
from openguild_proto.memory.repeats import find_repeat, keep_answer
from openguild_proto.memory.state import ABSENT, Channel, Membership, State
from openguild_proto.policy.channels import creator_role, decide_channel, decide_read_position
from openguild_proto.policy.count_limits import check_count
from openguild_proto.policy.permissions import Permission, require_owned
from openguild_proto.records import (
    ChannelAccess,
    ChannelRecord,
    ControlKind,
    LimitReached,
    MemberChange,
    ReadState,
    StoredEvent,
)
from openguild_proto.schemas.log_entries import (
    channel_created,
    channel_deleted,
    channel_role_granted,
    channel_updated,
    position_moved,
)
from openguild_proto.schemas.payloads import channel_body


@performs(InsertChannel)
def insert_channel(state: State, effect: InsertChannel) -> ChannelRecord | LimitReached:
    creator_id = effect.author.user_id
    require_in_guild(state, effect.author, effect.guild_id, Permission.CREATE_CHANNELS)
    repeated = find_repeat(state, effect.author, effect.once, ChannelRecord, effect.now_ms)
    if repeated is not None:
        return repeated
    full = check_count(len(state.channels_of_guild(effect.guild_id)), effect.limit)
    if full is not None:
        return full
    record = ChannelRecord(
        channel_id=effect.channel_id,
        guild_id=effect.guild_id,
        name=effect.name,
        created_at_ms=effect.now_ms,
        topic=effect.topic,
        position=effect.position,
    )
    channel = Channel(record)
    role = creator_role(state.guild_role(effect.guild_id, creator_id))
    if role is not None:
        channel.roles[creator_id] = Membership(role, effect.now_ms)
    state.channels[effect.channel_id] = channel
    keep_answer(state, effect.author, effect.once, record, effect.now_ms)
    state.append(channel_created(record), sender=creator_id, now_ms=effect.now_ms)
    state.log(
        ControlKind.CHANNEL_CREATED,
        guild_id=effect.guild_id,
        channel_id=effect.channel_id,
        user_id=creator_id,
        body=channel_body(record),
    )
    return record


@performs(ListChannels)
def list_channels(state: State, effect: ListChannels) -> tuple[ChannelRecord, ...]:
    records = [channel.record for channel in state.channels_of_guild(effect.guild_id)]
    return page_after(
        records,
        key=lambda record: (record.created_at_ms, record.channel_id),
        after=effect.after,
        limit=effect.limit,
    )


@performs(FindChannelAccess)
def find_channel_access(state: State, effect: FindChannelAccess) -> ChannelAccess | None:
    channel = state.channels.get(effect.channel_id)
    if channel is None:
        return None
    guild_role, channel_role = roles_now(state, channel, effect.user_id)
    return ChannelAccess(
        channel=channel.record,
        guild_role=guild_role,
        channel_role=channel_role,
        server_roles=state.roles_of(effect.user_id),
        head=len(channel.events),
        page=_page(state, effect.channel_id, effect.page),
    )


def _page(state: State, channel_id: str, page: PageBounds | None) -> EventPage | None:
    if page is None:
        return None
    events = read_events(state, ReadEvents(channel_id, page.limit, page.after, page.before))
    return EventPage(tuple((event.sequence, event.wire) for event in events or ()))


@performs(UpdateChannel)
def update_channel(state: State, effect: UpdateChannel) -> ChannelRecord:
    channel = require_in_channel(state, effect.author, effect.channel_id, Permission.RENAME)
    require_owned(channel.record.origin)
    changed = decide_channel(channel.record, name=effect.name, topic=effect.topic, position=effect.position)
    if changed is not None:
        channel.record = changed
        state.append(channel_updated(changed, effect.reason), sender=effect.author.user_id, now_ms=effect.now_ms)
    return channel.record


@performs(DeleteChannel)
def delete_channel(state: State, effect: DeleteChannel) -> None:
    channel = require_in_channel(state, effect.author, effect.channel_id, Permission.DELETE)
    require_owned(channel.record.origin)
    drop_channel(state, channel)
    entries = channel_deleted(channel.record, effect.reason)
    state.append(entries, sender=effect.author.user_id, now_ms=effect.now_ms)
    state.log(ControlKind.CHANNEL_DELETED, guild_id=channel.record.guild_id, channel_id=effect.channel_id)


def drop_events(state: State, channel: Channel) -> None:
    """Remove the ids of the channel's events from the index."""
    for event in channel.events:
        state.event_places.pop(event.event_id, None)


def drop_channel(state: State, channel: Channel) -> None:
    """Delete the channel with its log and roles, without a control record."""
    del state.channels[channel.record.channel_id]
    drop_events(state, channel)
    state.histories.pop(channel.record.channel_id, None)
    state.bases.pop(channel.record.channel_id, None)
    drop_cursors(state, {channel.record.channel_id})


@performs(GrantChannelRole)
def grant_channel_role(state: State, effect: GrantChannelRole) -> bool | MemberChange:
    channel, user = state.channels.get(effect.channel_id), state.users.get(effect.user_id)
    if channel is None or channel.record.origin is not None or user is None:
        return False
    if user.origin is not None and effect.user_id not in state.members[channel.record.guild_id]:
        return MemberChange.NOT_MEMBER
    if effect.user_id in channel.roles:
        channel.roles[effect.user_id].role = effect.role
    else:
        channel.roles[effect.user_id] = Membership(effect.role, effect.now_ms)
    entries = channel_role_granted(channel.record, effect.user_id, effect.role)
    state.append(entries, sender=None, now_ms=effect.now_ms)
    state.log(
        ControlKind.ACCESS_CHANGED,
        guild_id=channel.record.guild_id,
        channel_id=effect.channel_id,
        user_id=effect.user_id,
    )
    return True


# --- the log -------------------------------------------------------------------------------------


@performs(FindPosted)
def find_posted(state: State, effect: FindPosted) -> Posted | None:
    channel = state.channels.get(effect.channel_id)
    known = channel.nonces.get((effect.sender_id, effect.nonce)) if channel is not None else None
    if channel is None or known is None:
        return None
    fingerprint, sequence = known
    return Posted(event=channel.events[sequence - 1], fingerprint=fingerprint)


@performs(ReadEvents)
def read_events(state: State, effect: ReadEvents) -> tuple[StoredEvent, ...] | None:
    if effect.after is not None and effect.before is not None:
        raise LocalProtocolError("a page has one bound: after or before")
    events = state.events_of(effect.log_id)
    if events is None:
        return None
    limit = max(0, effect.limit)
    if effect.after is not None:
        start = max(0, effect.after)
        return tuple(event for event in events[start:] if event is not ABSENT)[:limit]
    end = len(events) if effect.before is None else min(max(0, effect.before - 1), len(events))
    return tuple(event for event in events[max(0, end - limit) : end] if event is not ABSENT)


@performs(MarkRead)
def mark_read(state: State, effect: MarkRead) -> ReadState:
    user_id = effect.author.user_id
    channel = require_in_channel(state, effect.author, effect.channel_id, Permission.READ)
    stored = channel.reads.get(user_id, 0)
    channel.reads[user_id] = decide_read_position(effect.sequence, head=len(channel.events), stored=stored)
    after = _read_state(state, channel, user_id)
    if after.last_read_sequence > stored:
        entries = position_moved(user_id, after, channel.record.epoch)
        state.append(entries, sender=user_id, now_ms=effect.now_ms)
    return after


@performs(ListUnread)
def list_unread(state: State, effect: ListUnread) -> tuple[ReadState, ...]:
    page = page_after(
        state.channels_seen_by(effect.user_id),
        key=lambda channel: (channel.record.created_at_ms, channel.record.channel_id),
        after=effect.after,
        limit=effect.limit,
    )
    return tuple(
        msgspec.structs.replace(_read_state(state, channel, effect.user_id), created_at_ms=channel.record.created_at_ms)
        for channel in page
    )


def _read_state(state: State, channel: Channel, user_id: str) -> ReadState:
    last_read = channel.reads.get(user_id, 0)
    unread = (sequence for sequence in channel.mentions if sequence > last_read)
    mentions = (sequence for sequence in unread if is_mentioned(state, channel, user_id, sequence)[0])
    return ReadState(
        channel_id=channel.record.channel_id,
        last_read_sequence=last_read,
        latest_sequence=len(channel.events),
        unread=sum(sender not in {"", user_id} for sender in channel.senders[last_read:]),
        mentions=sum(1 for _ in islice(mentions, MAX_COUNTED_MENTIONS)),
    )
