"""The events that a gateway client reports, in order."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

import msgspec

from openguild_proto.errors import ErrorCode
from openguild_proto.gateway.client_logs import ResumePosition
from openguild_proto.gateway.frames import GoneCode, Problem, Ready


class GatewayEvent(msgspec.Struct, frozen=True):
    """Base of all events."""


class Connect(GatewayEvent, frozen=True):
    """Open a WebSocket with the subprotocol of the encoding; answer with `connected` or `disconnected`."""


class Disconnect(GatewayEvent, frozen=True):
    """Close the WebSocket with this code. Afterwards pass in none of its messages and no `disconnected`."""

    code: int


class TokenNeeded(GatewayEvent, frozen=True):
    """Call `set_token` with a fresh token.

    `expires_in_ms`: the time left of the current token. None: it has expired, or the last token was refused.
    """

    expires_in_ms: int | None


class Opened(GatewayEvent, frozen=True):
    """The socket is authenticated. All logs are being followed again, and unanswered commands are sent again."""

    ready: Ready


class Followed(GatewayEvent, frozen=True):
    """A log is followed from `after` on. `recovered` False: discard your copy of the log, and read it again up to `after`."""

    log: str
    epoch: int
    after: int
    head: int
    recovered: bool


class FollowRefused(GatewayEvent, frozen=True):
    """The server refused to follow a log. The client does not ask again."""

    log: str
    code: str
    message: str


class Delivered(GatewayEvent, frozen=True):
    """The next event of a log. Events are reported in order and once. `wire`: the event as JSON."""

    log: str
    epoch: int
    sequence: int
    wire: bytes


class HintReceived(GatewayEvent, frozen=True):
    """A hint that is not stored in a log, such as typing. `data`: JSON."""

    log: str
    kind: str
    data: bytes


class LogGone(GatewayEvent, frozen=True):
    """A log is no longer followed. After `restarted` and `unavailable` the client asks for it again."""

    log: str
    code: GoneCode


class LogLagging(GatewayEvent, frozen=True):
    """This client reads a log too slowly. `head`: the log's newest sequence."""

    log: str
    head: int


class LogLive(GatewayEvent, frozen=True):
    """The client has caught up with a log."""

    log: str


class Answered(GatewayEvent, frozen=True):
    """A command was carried out. `result`: the decoded body of the HTTP response, None if it has none."""

    ref: int
    result: Any


class Refused(GatewayEvent, frozen=True):
    """The server refused a command with an error code of the HTTP API. The client does not repeat it."""

    ref: int
    code: str
    message: str
    retry_after_ms: int | None
    details: tuple[Problem, ...]
    may_be_done: bool = False  # by this attempt or one on an earlier connection (PROTOCOL 3.6.3)


def not_sent(ref: int, code: ErrorCode, message: str | None = None) -> Refused:
    """Return a `Refused` for a command that the client does not send because the server would refuse it with this code."""
    return Refused(ref, code.spec.code, message or code.spec.message, None, ())


class Dropped(GatewayEvent, frozen=True):
    """The connection ended before a `read` or `typing` was answered. Its outcome is unknown, and it is not repeated."""

    ref: int


class Interrupted(GatewayEvent, frozen=True):
    """The connection ended; the next one is opened in `retry_secs`. None: the client waits for a token."""

    reason: str
    retry_secs: float | None


class Ended(GatewayEvent, frozen=True):
    """The client has ended.

    `code`: the close code, or the HTTP status that refused the upgrade; None: the caller closed the client. `error`: the error
    code of a refused upgrade (PROTOCOL 3.6).
    """

    code: int | None
    reason: str
    error: str | None = None


ClientEvent: TypeAlias = (
    Connect
    | Disconnect
    | TokenNeeded
    | Opened
    | Followed
    | FollowRefused
    | Delivered
    | HintReceived
    | LogGone
    | LogLagging
    | LogLive
    | Answered
    | Refused
    | Dropped
    | Interrupted
    | Ended
)


def place_before(events: Iterable[ClientEvent], log: str) -> ResumePosition | None:
    """Return the place just before the first event of a log in `events`, or None if they report none."""
    for event in events:
        match event:
            case Followed(log=name, epoch=epoch, after=after) if name == log:
                return ResumePosition(epoch, after)
            case Delivered(log=name, epoch=epoch, sequence=sequence) if name == log:
                return ResumePosition(epoch, sequence - 1)
    return None
