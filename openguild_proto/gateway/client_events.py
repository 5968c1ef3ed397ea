"""What a gateway client tells its caller, in order."""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from openguild_proto.gateway.frames import GoneCode, Problem, Ready


class Told(msgspec.Struct, frozen=True):
    """Base of all events."""


class Connect(Told, frozen=True):
    """Open a WebSocket with the subprotocol of the encoding; answer with `connected` or `disconnected`."""


class Disconnect(Told, frozen=True):
    """Close the WebSocket with this code, and say nothing of it any more: neither messages nor `disconnected`."""

    code: int


class TokenNeeded(Told, frozen=True):
    """Call `set_token` with a fresh token. `expires_in_ms`: of the one in use; None: it has ended, or the last one was refused."""

    expires_in_ms: int | None


class Opened(Told, frozen=True):
    """The socket is authenticated; everything is followed again, and what was not answered is sent again."""

    ready: Ready


class Followed(Told, frozen=True):
    """A log is followed behind `after`. `recovered` False: what is known of it must be read anew, up to `after`."""

    log: str
    epoch: int
    after: int
    head: int
    recovered: bool


class FollowRefused(Told, frozen=True):
    """A log is not followed, and is not asked for again."""

    log: str
    code: str
    message: str


class Delivered(Told, frozen=True):
    """The next event of a log, in order and once. `wire`: the event in JSON."""

    log: str
    epoch: int
    sequence: int
    wire: bytes


class Overheard(Told, frozen=True):
    """Something that is in no log. `data` in JSON."""

    log: str
    kind: str
    data: bytes


class LogGone(Told, frozen=True):
    """A log is not followed any more; after `restarted` and `unavailable` it is asked for again."""

    log: str
    code: GoneCode


class LogLagging(Told, frozen=True):
    """This client reads a log too slowly; the log goes up to `head`."""

    log: str
    head: int


class LogLive(Told, frozen=True):
    """A log's events come as they happen again."""

    log: str


class Answered(Told, frozen=True):
    """A command was carried out. `result`: HTTP's body, decoded; None where there is none."""

    ref: int
    result: Any


class Refused(Told, frozen=True):
    """A command was refused, with the code of HTTP. It is not sent again."""

    ref: int
    code: str
    message: str
    retry_after_ms: int | None
    details: tuple[Problem, ...]


class Interrupted(Told, frozen=True):
    """The connection ended; another one follows in `retry_secs`. None: it waits for a token."""

    reason: str
    retry_secs: float | None


class Ended(Told, frozen=True):
    """It is over for good. `code`: the close code, None if the caller has closed it."""

    code: int | None
    reason: str


ClientEvent: TypeAlias = (
    Connect
    | Disconnect
    | TokenNeeded
    | Opened
    | Followed
    | FollowRefused
    | Delivered
    | Overheard
    | LogGone
    | LogLagging
    | LogLive
    | Answered
    | Refused
    | Interrupted
    | Ended
)
