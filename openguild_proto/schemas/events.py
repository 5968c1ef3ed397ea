"""Contents of the events of channel logs, by their `event_type` (PROTOCOL 6.4, 6.6, 6.7). Guilds and users: log_contents.py."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, cast

import msgspec

from openguild_proto.canonical.event import CanonicalEvent
from openguild_proto.canonical.redaction import is_redacted
from openguild_proto.schemas.accounts import Body
from openguild_proto.schemas.fields import Emoji, EventId, MessageText, NameText, ReasonText, Role, Uuid
from openguild_proto.schemas.log_contents import GUILD_CONTENTS, USER_CONTENTS, LogContent


class EventAuthor(Body, frozen=True):
    """The author of a message, with the username at the time of the message."""

    id: Uuid
    username: NameText


class MentionedParties(Body, frozen=True):
    """The mentions of a message. `roles`: mentions every member whose effective role in the channel is one of these."""

    users: tuple[Uuid, ...] = ()
    roles: tuple[Role, ...] = ()
    everyone: bool = False


class MessageContent(Body, frozen=True):
    """`content` of a canonical event whose `event_type` is `message`."""

    author: EventAuthor
    content: MessageText
    nonce: str = ""  # absent in messages of the first implementation's form (PROTOCOL 13.2.6)
    reply_to: EventId | None = None
    mentions: MentionedParties | None = None


class EditContent(Body, frozen=True):
    """`content` of `message.edited`: the new text of the message `target`."""

    author: EventAuthor
    target: EventId
    content: MessageText
    nonce: str


class RedactionContent(Body, frozen=True):
    """`content` of `message.redacted`: the message `target` was redacted."""

    author: EventAuthor
    target: EventId
    nonce: str
    reason: ReasonText | None = None


class ReactionContent(Body, frozen=True):
    """`content` of `reaction.added` and `reaction.removed`."""

    author: EventAuthor
    target: EventId
    emoji: Emoji
    nonce: str


class ReactionsClearedContent(Body, frozen=True):
    """`content` of `reactions.cleared`: a moderator removed all users' reactions with `emoji`, or all reactions without it."""

    author: EventAuthor
    target: EventId
    nonce: str
    emoji: Emoji | None = None
    reason: ReasonText | None = None


class PinContent(Body, frozen=True):
    """`content` of `message.pinned` and `message.unpinned`."""

    author: EventAuthor
    target: EventId
    nonce: str


class RedactedContent(Body, frozen=True):
    """The content that is left of a redacted message, or of an edit of one (`target`)."""

    content: Literal[""]
    redacted_by: EventId
    target: EventId | None = None
    reply_to: EventId | None = None


SAID_BY_USERS: dict[str, type[Body]] = {
    "message": MessageContent,
    "message.edited": EditContent,
    "message.redacted": RedactionContent,
    "reaction.added": ReactionContent,
    "reaction.removed": ReactionContent,
    "reactions.cleared": ReactionsClearedContent,
    "message.pinned": PinContent,
    "message.unpinned": PinContent,
}
"""`content` by `event_type`, for the events of a channel's log. Each of these events is by a user."""

CONTENTS: dict[str, type[Body]] = {**SAID_BY_USERS, **GUILD_CONTENTS, **USER_CONTENTS}
"""`content` by the `event_type` of an event."""

AnyContent: TypeAlias = (
    MessageContent
    | EditContent
    | RedactionContent
    | ReactionContent
    | ReactionsClearedContent
    | PinContent
    | RedactedContent
    | LogContent
)


class UnknownContent(msgspec.Struct, frozen=True, gc=False):
    """Content of an unknown type, from a newer release or another server. Pass it on and ignore it."""

    content: Any


_decoder = msgspec.json.Decoder(CanonicalEvent)


def parse_event(wire: bytes | str) -> CanonicalEvent:
    """Parse the JSON of an event, without its `content`. Raises msgspec.DecodeError."""
    return _decoder.decode(wire)


def parse_content(event: CanonicalEvent) -> AnyContent | UnknownContent:
    """Return the content of the event, by its type. Unknown members are ignored (PROTOCOL 13.1.1)."""
    kind: type[Body] | None = RedactedContent if is_redacted(event.content) else CONTENTS.get(event.event_type)
    if kind is None:
        return UnknownContent(event.content)
    try:
        return cast("AnyContent", msgspec.convert(event.content, kind))
    except msgspec.ValidationError:
        return UnknownContent(event.content)
