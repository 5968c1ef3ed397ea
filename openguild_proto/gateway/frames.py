"""The frames of the gateway, as one tagged union for each direction (PROTOCOL 15.1).

A frame is one object with the member `type`. Ids and members that the gateway itself uses are checked when a frame is decoded. The
texts and numbers of a command are checked by its operation, as over HTTP. Unknown members are ignored.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta

from openguild_proto.limits import (
    MAX_DEVICE_FIELD_CHARS,
    MAX_GATEWAY_LOGS,
    MAX_NONCE_CHARS,
    MAX_REF,
    MAX_SAFE_INTEGER,
    MAX_SEQUENCE,
    MAX_TAIL_EVENTS,
    MAX_TOKEN_CHARS,
)
from openguild_proto.schemas.accounts import Body
from openguild_proto.schemas.fields import (
    EVENT,
    EVENT_ID_PATTERN,
    LAST,
    LOG_NAME_PATTERN,
    NONCE_PATTERN,
    AnyInteger,
    Count,
    Emoji,
    LogName,
    PreviewText,
    ReasonText,
    Timestamp,
    Uuid,
)
from openguild_proto.schemas.guilds import Guild
from openguild_proto.schemas.messages import AllowedMentions, ReactionAction
from openguild_proto.schemas.shapes import UUID_FIELD_PATTERN

_LOG_CHARS = len("channel:") + 36

Ref: TypeAlias = Annotated[int, Meta(ge=0, le=MAX_REF)]
Key: TypeAlias = Annotated[str, Meta(min_length=1, max_length=MAX_NONCE_CHARS, pattern=NONCE_PATTERN + LAST)]
ChannelId: TypeAlias = Annotated[str, Meta(max_length=36, pattern=UUID_FIELD_PATTERN)]
MessageId: TypeAlias = Annotated[str, Meta(max_length=45, pattern=EVENT_ID_PATTERN + LAST)]
Log: TypeAlias = Annotated[str, Meta(max_length=_LOG_CHARS, pattern=LOG_NAME_PATTERN + LAST)]
Milliseconds: TypeAlias = Annotated[int, Meta(ge=0, le=MAX_SAFE_INTEGER)]

# --- from the client -------------------------------------------------------------------------------


class Auth(Body, frozen=True, tag_field="type", tag="auth"):
    """Authenticate the socket, or renew its token before it expires."""

    token: Annotated[
        str, Meta(extra_json_schema={"minLength": 1, "maxLength": MAX_TOKEN_CHARS})
    ]  # a token of another length is invalid
    ref: Ref = 0  # for the answer to a renewal


class SubLog(Body, frozen=True):
    """A log to follow: after the sequence `after`, or from its newest `tail` events, or from its head."""

    log: Log
    epoch: Annotated[int, Meta(ge=1, le=MAX_SAFE_INTEGER)] | None = None  # of the log in which `after` counts
    after: Annotated[int, Meta(ge=0, le=MAX_SEQUENCE)] | None = None
    tail: Annotated[int, Meta(ge=0, le=MAX_TAIL_EVENTS)] | None = None


class Sub(Body, frozen=True, tag_field="type", tag="sub"):
    """Follow logs. Each log is answered once. If it is already followed, it is followed from the new position."""

    ref: Ref
    logs: Annotated[list[SubLog], Meta(min_length=1, max_length=MAX_GATEWAY_LOGS)]


class Unsub(Body, frozen=True, tag_field="type", tag="unsub"):
    """Stop following logs. Not answered."""

    logs: Annotated[list[Log], Meta(min_length=1, max_length=MAX_GATEWAY_LOGS)]


class Command(Body, frozen=True):
    """Base of frames that are answered with `ok` or `err`. `key`: a repeat with the same key has no further effect (PROTOCOL 7.5).

    `GatewayClient.send` chooses `ref`; pass 0.
    """

    ref: Ref
    channel_id: ChannelId


class Post(Command, frozen=True, kw_only=True, tag_field="type", tag="post"):
    """Post a message."""

    content: str
    key: Key | None = None
    reply_to: MessageId | None = None
    allowed_mentions: AllowedMentions | None = None


class Edit(Command, frozen=True, kw_only=True, tag_field="type", tag="edit"):
    """Edit a message of the user."""

    event_id: MessageId
    content: str
    key: Key | None = None


class Redact(Command, frozen=True, kw_only=True, tag_field="type", tag="redact"):
    """Redact a message."""

    event_id: MessageId
    reason: ReasonText | None = None
    key: Key | None = None


class React(Command, frozen=True, kw_only=True, tag_field="type", tag="react"):
    """Add a reaction to a message, or remove it."""

    event_id: MessageId
    emoji: Emoji
    action: ReactionAction = "add"
    key: Key | None = None


class Read(Command, frozen=True, kw_only=True, tag_field="type", tag="read"):
    """Move the read position to `sequence`, or to the newest event if it is absent. A repeat has no effect."""

    sequence: AnyInteger | None = None


class Typing(Command, frozen=True, kw_only=True, tag_field="type", tag="typing"):
    """Show others that the user is typing, with an optional preview of the text. An empty preview withdraws it."""

    preview: PreviewText | None = None


class Heartbeat(Body, frozen=True, tag_field="type", tag="hb"):
    """Shows that the sender is alive, in both directions."""


AnyCommand: TypeAlias = Post | Edit | Redact | React | Read | Typing
ClientFrame: TypeAlias = Auth | Sub | Unsub | AnyCommand | Heartbeat

# --- from the server -------------------------------------------------------------------------------


class SocketLimits(Body, frozen=True, omit_defaults=False):
    """The limits of one socket."""

    logs: Count
    frame_bytes: Count
    frames_per_minute: Count  # 0: no limit
    held_frames: Count  # commands sent before earlier ones are answered; the server reads no more than this


class Hello(Body, frozen=True, tag_field="type", tag="hello", omit_defaults=False):
    """The first frame."""

    heartbeat_ms: Milliseconds
    auth_ms: Milliseconds  # the time within which `auth` must arrive
    limits: SocketLimits
    server_time: Timestamp
    capabilities: list[str]


class ReadyUser(Body, frozen=True):
    """The authenticated user."""

    user_id: Uuid
    username: Annotated[str, Meta(max_length=MAX_DEVICE_FIELD_CHARS)]


class ReadySession(Body, frozen=True):
    """The session of the token."""

    session_id: Uuid
    expires_at: Timestamp


class LogHead(Body, frozen=True):
    """The newest position of a log."""

    log: LogName
    epoch: Annotated[int, Meta(ge=1, le=MAX_SAFE_INTEGER)]
    head: Annotated[int, Meta(ge=0, le=MAX_SEQUENCE)]


class Ready(Body, frozen=True, tag_field="type", tag="ready", omit_defaults=False):
    """The socket is authenticated. `heads`: of the user's own log and of the logs of their guilds."""

    user: ReadyUser
    session: ReadySession
    guilds: list[Guild]
    heads: list[LogHead]


class SubbedLog(Body, frozen=True, omit_defaults=False):
    """A log that is followed from now on: its events after `after` are sent without a gap.

    `recovered` False: it cannot be continued from the requested position, so the client must read its state of the log again.
    """

    log: Log
    epoch: int
    after: Annotated[int, Meta(ge=0, le=MAX_SEQUENCE)]
    head: Annotated[int, Meta(ge=0, le=MAX_SEQUENCE)]
    recovered: bool


class SubOk(Body, frozen=True, tag_field="type", tag="sub_ok"):
    """Answers some or all logs of a `sub`."""

    ref: Ref
    logs: list[SubbedLog]


class Ok(Body, frozen=True, tag_field="type", tag="ok"):
    """A command was carried out; `result` is the body of the HTTP response."""

    ref: Ref
    result: Any = None  # a server puts `Encoding.raw` here


class Problem(Body, frozen=True):
    """A fault in one member."""

    field: str
    message: str


class Err(Body, frozen=True, tag_field="type", tag="err"):
    """A command, a renewal or one log of a `sub` was refused. `code`: as in HTTP errors."""

    ref: Ref
    code: str
    message: str
    log: Log | None = None
    retry_after_ms: Milliseconds | None = None
    details: list[Problem] = []


class Ev(Body, frozen=True, tag_field="type", tag="ev"):
    """The next event of a followed log."""

    log: Log
    epoch: Annotated[int, Meta(ge=1, le=MAX_SAFE_INTEGER)]
    seq: Annotated[int, Meta(ge=1, le=MAX_SEQUENCE)]
    event: Annotated[msgspec.Raw, EVENT]


class Eph(Body, frozen=True, tag_field="type", tag="eph"):
    """A hint that is not stored in a log and may be lost, such as typing."""

    log: Log
    kind: str
    data: msgspec.Raw


GoneCode: TypeAlias = Literal["access_lost", "deleted", "restarted", "unavailable"]


class Gone(Body, frozen=True, tag_field="type", tag="gone"):
    """A log is no longer followed. After `restarted` and `unavailable` the client may subscribe again."""

    log: Log
    code: GoneCode


class Lagging(Body, frozen=True, tag_field="type", tag="lagging"):
    """The socket reads too slowly: the log's events are now read from storage, at the socket's pace."""

    log: Log
    head: Annotated[int, Meta(ge=0, le=MAX_SEQUENCE)]


class Live(Body, frozen=True, tag_field="type", tag="live"):
    """The socket has caught up: the log's events are sent as they happen."""

    log: Log


class AuthExpiring(Body, frozen=True, tag_field="type", tag="auth_expiring"):
    """The token expires soon: send `auth` with a new one."""

    expires_in_ms: Milliseconds


class Drain(Body, frozen=True, tag_field="type", tag="drain"):
    """The server is stopping: reconnect after this delay, which differs for each socket."""

    reconnect_after_ms: Milliseconds


ServerFrame: TypeAlias = (
    Hello | Ready | SubOk | Ok | Err | Ev | Eph | Gone | Lagging | Live | Heartbeat | AuthExpiring | Drain
)
AnyFrame: TypeAlias = ClientFrame | ServerFrame

COMMANDS: tuple[type[Any], ...] = (Post, Edit, Redact, React, Read, Typing)
