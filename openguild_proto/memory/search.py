"""Search in memory: examines every message."""

from __future__ import annotations

from collections.abc import Iterator

from openguild_proto.canonical.texts import posted_text, posted_with
from openguild_proto.effects.performs import performs
from openguild_proto.effects.search import HitChannel, IndexMessages, SearchHit, SearchMessages, SearchTooWide
from openguild_proto.memory.authority import may_read
from openguild_proto.memory.state import Channel, State
from openguild_proto.policy.search import is_found


@performs(SearchMessages)
def search_messages(state: State, effect: SearchMessages) -> tuple[SearchHit, ...] | SearchTooWide:
    hits = [hit for channel in _searched(state, effect) for hit in _hits(channel, effect)]
    hits.sort(key=_order, reverse=True)
    behind = effect.behind
    if behind is not None:
        hits = [hit for hit in hits if _order(hit) < (behind.at_ms, behind.key)]
    return tuple(hits[: effect.limit])


def _order(hit: SearchHit) -> tuple[int, str]:
    return hit.place.at_ms, hit.place.key


def _searched(state: State, effect: SearchMessages) -> Iterator[Channel]:
    places = effect.wanted.places
    channels = state.channels_seen_by(effect.reader_id) if not places else list(state.channels.values())
    for channel in channels:
        named = not places or channel.record.channel_id in places or channel.record.guild_id in places
        if named and may_read(state, channel, effect.reader_id):
            yield channel


def _hits(channel: Channel, effect: SearchMessages) -> Iterator[SearchHit]:
    record = channel.record
    for sequence, message in channel.messages.items():
        wire = channel.events[sequence - 1].wire
        text = posted_text(wire) if message.edited_text is None else message.edited_text
        if is_found(effect.wanted, message, text, posted_with(wire)):
            yield SearchHit(HitChannel(record.channel_id, record.name, record.guild_id), message, wire)


@performs(IndexMessages)
def index_messages(state: State, effect: IndexMessages) -> bool:
    """Do nothing: there is no index."""
    return False
