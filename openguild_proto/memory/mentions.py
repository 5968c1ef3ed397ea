"""Mentions in memory: stored with their message, read as an inbox."""

from __future__ import annotations

from openguild_proto.effects.mentions import ListMentions
from openguild_proto.effects.performs import performs
from openguild_proto.limits import MAX_SAFE_INTEGER
from openguild_proto.memory.authority import roles_in
from openguild_proto.memory.state import Channel, State
from openguild_proto.policy.mentions import mentions_reader
from openguild_proto.policy.permissions import effective_role
from openguild_proto.records import MentionRecord, Mentions, StoredEvent
from openguild_proto.schemas.log_entries import mentioned


def note_mentions(state: State, channel: Channel, event: StoredEvent, sender_id: str, mentions: Mentions) -> None:
    """Store the mentions of a new message, and append to the logs of mentioned users. Omits users who may not read the channel."""
    readers = tuple(user for user in mentions.users if user != sender_id and any(roles_in(state, channel, user)))
    if readers or mentions.of_many:
        channel.mentions[event.sequence] = Mentions(readers, mentions.roles, mentions.everyone)
    state.append(mentioned(readers, event), sender=sender_id, now_ms=event.created_at_ms)


def is_mentioned(state: State, channel: Channel, user_id: str, sequence: int) -> tuple[bool, bool]:
    """Return whether the message mentions the user, and whether by their id."""
    mentions = channel.mentions.get(sequence)
    if mentions is None or channel.senders[sequence - 1] == user_id:
        return False, False
    if user_id in mentions.users:
        return True, True
    if channel.events[sequence - 1].created_at_ms < _reader_since_ms(state, channel, user_id):
        return False, False
    guild_role, channel_role = roles_in(state, channel, user_id)
    role = effective_role(state.roles_of(user_id), guild_role, channel_role)
    return mentions_reader(mentions, role), False


def _reader_since_ms(state: State, channel: Channel, user_id: str) -> int:
    """Return when the user joined the guild or channel; for users with only a server role, a time in the far future."""
    memberships = (channel.roles.get(user_id), state.members[channel.record.guild_id].get(user_id))
    return min(
        (membership.joined_at_ms for membership in memberships if membership is not None), default=MAX_SAFE_INTEGER
    )


@performs(ListMentions)
def list_mentions(state: State, effect: ListMentions) -> tuple[MentionRecord, ...]:
    found = [
        record
        for channel in state.channels_seen_by(effect.user_id)
        for record in _mentions_in(state, channel, effect.user_id)
        if record.unread or not effect.unread
    ]
    found.sort(key=_place, reverse=True)
    after = effect.after
    return tuple(r for r in found if after is None or _place(r) < (after.at_ms, after.key))[: effect.limit]


def _mentions_in(state: State, channel: Channel, user_id: str) -> list[MentionRecord]:
    records = []
    for sequence in channel.mentions:
        mentioned_now, direct = is_mentioned(state, channel, user_id, sequence)
        if mentioned_now:
            event, message = channel.events[sequence - 1], channel.messages[sequence]
            records.append(
                MentionRecord(
                    channel_id=event.log_id,
                    guild_id=channel.record.guild_id,
                    sequence=sequence,
                    event_id=event.event_id,
                    created_at_ms=event.created_at_ms,
                    wire=event.wire,
                    edited_text=message.edited_text,
                    direct=direct,
                    unread=sequence > channel.reads.get(user_id, 0),
                )
            )
    return records


def _place(record: MentionRecord) -> tuple[int, str]:
    return record.created_at_ms, record.event_id
