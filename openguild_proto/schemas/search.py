"""The answer to a search (PROTOCOL 7.11)."""

from __future__ import annotations

from collections.abc import Sequence as Several
from typing import Literal

from openguild_proto.effects.search import SearchHit
from openguild_proto.policy.search import Phrase, excerpt
from openguild_proto.schemas.accounts import Body
from openguild_proto.schemas.fields import EventId, Sequence, Timestamp, Uuid
from openguild_proto.schemas.folded_messages import posted_by, text_now
from openguild_proto.schemas.messages import Author
from openguild_proto.timestamps import from_millis


class SearchResult(Body, frozen=True):
    """A message that was found. `title`: its author's name. `subtitle`: its channel's name."""

    id: EventId
    type: Literal["message"]
    title: str
    subtitle: str
    snippet: str  # of its current text, at most MAX_EXCERPT_CHARS
    channel_id: Uuid
    event_id: EventId
    guild_id: Uuid
    sequence: Sequence
    author: Author
    created_at: Timestamp
    edited_at: Timestamp | None = None

    @classmethod
    def of(cls, hit: SearchHit, phrases: Several[Phrase]) -> SearchResult:
        """Return the result for a hit. `phrases`: the phrases of the search."""
        state = hit.state
        author = posted_by(state, hit.wire)
        return cls(
            id=state.event_id,
            type="message",
            title=author.username or author.id,
            subtitle=hit.channel.name,
            snippet=excerpt(text_now(state, hit.wire) or "", phrases),
            channel_id=hit.channel.channel_id,
            event_id=state.event_id,
            guild_id=hit.channel.guild_id,
            sequence=state.sequence,
            author=author,
            created_at=from_millis(state.created_at_ms),
            edited_at=None if state.edited_at_ms is None else from_millis(state.edited_at_ms),
        )
