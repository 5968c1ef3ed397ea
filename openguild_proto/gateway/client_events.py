"""The events of a gateway client, in order."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

import msgspec

from openguild_proto.errors import ErrorCode
from openguild_proto.gateway.client_logs import Place
from openguild_proto.gateway.frames import GoneCode, Problem, Ready


class GatewayEvent(msgspec.Struct, frozen=True):
    """Base of all events."""


class Connect(GatewayEvent, frozen=True):
    """Open a WebSocket with the subprotocol of the encoding; answer with `connected` or `disconnected`."""


class Disconnect(GatewayEvent, frozen=True):
    """Close the WebSocket with this code, and report nothing more about it, neither messages nor `disconnected`."""

    code: int


class TokenNeeded(GatewayEvent, frozen=True):
    """Call `set_token` with a new token. `expires_in_ms`: of the current token; None: it has expired, or was refused."""

    expires_in_ms: int | None


class Opened(GatewayEvent, frozen=True):
    """The socket is authenticated. The client follows its logs again, and sends unanswered commands again."""

    ready: Ready


class Followed(GatewayEvent, frozen=True):
    """A log is followed after `after`. `recovered` False: discard your copy of the log, and read it again up to `after`."""

    log: str
    epoch: int
    after: int
    head: int
    recovered: bool


class FollowRefused(GatewayEvent, frozen=True):
    """The server refused a log. The client does not ask for it again."""

    log: str
    code: str
    message: str


class Delivered(GatewayEvent, frozen=True):
    """The next event of a log, in order and once. `wire`: the event in JSON."""

    log: str
    epoch: int
    sequence: int
    wire: bytes


class HintReceived(GatewayEvent, frozen=True):
    """A hint that is in no log, such as typing. `data` in JSON."""

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
    """A command was carried out. `result`: the body of the HTTP response, decoded; None if there is none."""

    ref: int
    result: Any


class Refused(GatewayEvent, frozen=True):
    """The server refused a command, with the error code that HTTP has. The client does not repeat it."""

    ref: int
    code: str
    message: str
    retry_after_ms: int | None
    details: tuple[Problem, ...]
    may_be_done: bool = False  # by this attempt, or by one on an earlier connection (PROTOCOL 3.6.3)


def not_sent(ref: int, code: ErrorCode, message: str | None = None) -> Refused:
    """Return the refusal of a command that the client does not send, equal to the server's refusal."""
    return Refused(ref, code.spec.code, message or code.spec.message, None, ())


class Dropped(GatewayEvent, frozen=True):
    """A `read` or `typing` was abandoned, because its connection ended. Whether it was done is unknown."""

    ref: int


class Interrupted(GatewayEvent, frozen=True):
    """The connection ended; another one follows in `retry_secs`. None: it waits for a token."""

    reason: str
    retry_secs: float | None


class Ended(GatewayEvent, frozen=True):
    """The client has ended. `code`: the close code, or the HTTP status that refused the upgrade; None: the caller closed it.

    `error`: the code of such a refusal (PROTOCOL 3.6).
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


def place_before(events: Iterable[ClientEvent], log: str) -> Place | None:
    """Return the place before the first event of a log; None: there is none."""
    for event in events:
        match event:
            case Followed(log=name, epoch=epoch, after=after) if name == log:
                return Place(epoch, after)
            case Delivered(log=name, epoch=epoch, sequence=sequence) if name == log:
                return Place(epoch, sequence - 1)
    return None
