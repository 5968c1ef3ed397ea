"""Messages as clients read them, folded from the event that posted them and later changes (PROTOCOL 7.8)."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from openguild_proto.effects.messages import FoundMessage, MessagePage, MessageVersion
from openguild_proto.limits import MAX_PREVIEW_CHARS
from openguild_proto.policy.reactions import shown_to
from openguild_proto.records import NO_REACTIONS, MentionRecord, MessageState
from openguild_proto.schemas.messages import Author, Mention, Message, MessagePreview, TextVersion
from openguild_proto.timestamps import from_millis


class _Content(msgspec.Struct):
    author: Author | None = None
    content: str = ""
    reply_to: str | None = None
    redacted_by: str | None = None


class _Event(msgspec.Struct):
    content: _Content
    sender: str = ""
    origin_server: str = ""


_decoder = msgspec.json.Decoder(_Event)


def folded_messages(channel_id: str, page: MessagePage, reader_id: str, server_name: str) -> list[Message]:
    """Return the messages of the page as this reader sees them. `server_name`: this server."""
    previews = {event_id: _preview(original) for event_id, original in page.originals.items()}
    return [_folded_message(channel_id, found, previews, reader_id, server_name) for found in page.messages]


def _folded_message(
    channel_id: str, found: FoundMessage, previews: Mapping[str, MessagePreview], reader_id: str, server_name: str
) -> Message:
    event = _decoder.decode(found.wire)
    state, content = found.state, event.content
    reply_to = content.reply_to
    reactions: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    if state.reactions != NO_REACTIONS:
        reactions = msgspec.Raw(shown_to(reader_id, state.reactions, found.crowds))
    return Message(
        event_id=state.event_id,
        sequence=state.sequence,
        channel_id=channel_id,
        author=_author(state.author_id, content),
        created_at=from_millis(state.created_at_ms),
        content=_text(state, content),
        edited_at=None if state.edited_at_ms is None else from_millis(state.edited_at_ms),
        versions=state.versions,
        redacted_by=state.redacted_by,
        pinned_at=None if state.pinned_at_ms is None else from_millis(state.pinned_at_ms),
        reactions=reactions,
        reply_count=state.replies,
        reply_to=reply_to,
        reply_preview=None if reply_to is None else previews.get(reply_to),
        origin=None if event.origin_server == server_name else event.origin_server,
    )


def posted_by(state: MessageState, wire: bytes) -> Author:
    """Return the author of a message. `wire`: the event that posted it."""
    return _author(state.author_id, _decoder.decode(wire).content)


def text_now(state: MessageState, wire: bytes) -> str | None:
    """Return the newest text of a message, or None if it is redacted."""
    return _text(state, _decoder.decode(wire).content)


def folded_version(version: MessageVersion) -> TextVersion:
    """Return one version of a message's text."""
    content = _decoder.decode(version.wire).content
    text = None if content.redacted_by is not None else content.content
    return TextVersion(version.sequence, version.event_id, from_millis(version.created_at_ms), text)


def mention_line(mention: MentionRecord) -> Mention:
    """Return an entry of the inbox."""
    event = _decoder.decode(mention.wire)
    text = event.content.content if mention.edited_text is None else mention.edited_text
    return Mention(
        channel_id=mention.channel_id,
        guild_id=mention.guild_id,
        event_id=mention.event_id,
        sequence=mention.sequence,
        created_at=from_millis(mention.created_at_ms),
        author=_author(event.sender, event.content),
        content=text[:MAX_PREVIEW_CHARS],
        direct=mention.direct,
        unread=mention.unread,
    )


def _preview(original: FoundMessage) -> MessagePreview:
    content = _decoder.decode(original.wire).content
    text = _text(original.state, content)
    return MessagePreview(
        event_id=original.state.event_id,
        sequence=original.state.sequence,
        author=_author(original.state.author_id, content),
        content=None if text is None else text[:MAX_PREVIEW_CHARS],
    )


def _author(user_id: str, content: _Content) -> Author:
    return content.author or Author(user_id)


def _text(state: MessageState, content: _Content) -> str | None:
    """Return the newest text, or None if it is redacted."""
    if state.redacted_by is not None:
        return None
    return content.content if state.edited_text is None else state.edited_text
