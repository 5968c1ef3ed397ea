"""The state machine of a connection as data: two literal tables under three rules.

1. `TRANSITIONS` maps an input to the next phase. An input without an entry is not allowed in that phase: a command of the
   caller raises LocalProtocolError and changes nothing. The peer's bytes and deadlines are always allowed.
2. `PHASES` describes each phase. Entering one sets its own deadline, unless it is running, and stops every deadline that
   may not run there.
3. A phase leads to a later one or, between two requests, back to an earlier one. From FLUSHING on, the peer's bytes are
   not interpreted, so a fault gets one response and nothing follows it.

The phase is the only state that decides how a connection continues. docs/embedding.md shows both tables.
"""

from __future__ import annotations

from enum import Enum, StrEnum
from typing import NamedTuple

from openguild_proto.connection.deadlines import Deadline


class Phase(StrEnum):
    """The phases of a connection; `PHASES` gives their meaning."""

    NEW = "new"
    IDLE = "idle"
    UNREAD = "unread"
    HEAD = "head"
    BODY = "body"
    RESPONDING = "responding"
    UPGRADING = "upgrading"
    LAST_HEAD = "last_head"
    LAST_BODY = "last_body"
    LAST_RESPONSE = "last_response"
    LAST_UPGRADE = "last_upgrade"
    HALF_CLOSED = "half_closed"
    HALF_CLOSED_RESPONSE = "half_closed_response"
    OPEN = "open"
    CLOSING = "closing"
    FLUSHING = "flushing"
    LINGERING = "lingering"
    CLOSED = "closed"
    ABORTED = "aborted"


class Input(StrEnum):
    """The inputs of the state machine."""

    # from the peer's bytes
    BLANK = "blank"  # no part of a request, at most an empty line before it (RFC 9112 2.2)
    HEAD = "head"  # a head has begun
    BODY = "body"  # a head is complete, its body is not
    REQUEST = "request"  # a whole request, not an upgrade
    HANDSHAKE = "handshake"  # a valid opening handshake (RFC 6455 4.2.1)
    VIOLATION = "violation"  # a broken rule
    PEER_CLOSE = "peer_close"  # the peer's close frame
    EOF = "eof"  # the peer has shut its side
    # from the caller
    RESPOND = "respond"  # the connection may be reused
    RESPOND_UNREAD = "respond_unread"  # it may be reused, and bytes of the next request are buffered
    RESPOND_LAST = "respond_last"  # it may not be reused
    ACCEPT = "accept"
    SEND = "send"
    EXPIRE_AT = "expire_at"
    CLOSE = "close"
    WRITE_ENDED = "write_ended"  # the owner of the socket has shut the write side
    # deadlines and bounds
    OVERFLOW = "overflow"  # too many bytes are queued for the peer
    CALLBACK_FAILED = "callback_failed"  # a callback raised while bytes or a deadline were handled
    HEAD_TIMEOUT = "head_timeout"
    BODY_TIMEOUT = "body_timeout"
    IDLE_TIMEOUT = "idle_timeout"
    WRITE_TIMEOUT = "write_timeout"
    PING_TIMEOUT = "ping_timeout"  # too many pings without a pong
    FRAME_TIMEOUT = "frame_timeout"
    CLOSE_TIMEOUT = "close_timeout"
    LINGER_TIMEOUT = "linger_timeout"


class Reading(Enum):
    """The treatment of the peer's bytes."""

    REQUESTS = "requests"  # read as HTTP
    FRAMES = "frames"  # read as WebSocket
    KEPT = "kept"  # buffered, within a bound, until the caller responds to the current request
    DROPPED = "dropped"  # ignored


class Wants(Enum):
    """The next duty of the socket's owner. All but ABORT apply once nothing is queued."""

    KEEP = "keep"  # continue
    SHUT_WRITE = "shut_write"  # shut the write side, call `write_ended`, and keep reading; or close the socket
    CLOSE = "close"  # close the socket; nothing is lost
    ABORT = "abort"  # close the socket at once, with or without queued bytes


_P, _I, _D = Phase, Input, Deadline

TRANSITIONS: dict[Phase, dict[Input, Phase]] = {
    _P.NEW: {
        _I.BLANK: _P.NEW, _I.HEAD: _P.HEAD, _I.BODY: _P.BODY, _I.REQUEST: _P.RESPONDING, _I.HANDSHAKE: _P.UPGRADING,
        _I.VIOLATION: _P.FLUSHING, _I.EOF: _P.CLOSED,
        _I.CLOSE: _P.FLUSHING,
        _I.HEAD_TIMEOUT: _P.FLUSHING, _I.CALLBACK_FAILED: _P.ABORTED, _I.WRITE_TIMEOUT: _P.ABORTED,
    },
    _P.IDLE: {
        _I.BLANK: _P.IDLE, _I.HEAD: _P.HEAD, _I.BODY: _P.BODY, _I.REQUEST: _P.RESPONDING, _I.HANDSHAKE: _P.UPGRADING,
        _I.VIOLATION: _P.FLUSHING, _I.EOF: _P.CLOSED,
        _I.CLOSE: _P.FLUSHING,
        _I.IDLE_TIMEOUT: _P.FLUSHING, _I.CALLBACK_FAILED: _P.ABORTED, _I.WRITE_TIMEOUT: _P.ABORTED,
    },
    _P.UNREAD: {
        _I.BLANK: _P.IDLE, _I.HEAD: _P.HEAD, _I.BODY: _P.BODY, _I.REQUEST: _P.RESPONDING, _I.HANDSHAKE: _P.UPGRADING,
        _I.VIOLATION: _P.FLUSHING,
        _I.CLOSE: _P.LAST_HEAD,
        _I.CALLBACK_FAILED: _P.ABORTED, _I.WRITE_TIMEOUT: _P.ABORTED,
    },
    _P.HEAD: {
        _I.HEAD: _P.HEAD, _I.BODY: _P.BODY, _I.REQUEST: _P.RESPONDING, _I.HANDSHAKE: _P.UPGRADING,
        _I.VIOLATION: _P.FLUSHING, _I.EOF: _P.CLOSED,
        _I.CLOSE: _P.LAST_HEAD,
        _I.HEAD_TIMEOUT: _P.FLUSHING, _I.CALLBACK_FAILED: _P.ABORTED, _I.WRITE_TIMEOUT: _P.ABORTED,
    },
    _P.BODY: {
        _I.BODY: _P.BODY, _I.REQUEST: _P.RESPONDING, _I.VIOLATION: _P.FLUSHING, _I.EOF: _P.CLOSED,
        _I.CLOSE: _P.LAST_BODY,
        _I.BODY_TIMEOUT: _P.FLUSHING, _I.CALLBACK_FAILED: _P.ABORTED, _I.WRITE_TIMEOUT: _P.ABORTED,
    },
    _P.RESPONDING: {
        _I.VIOLATION: _P.FLUSHING, _I.EOF: _P.HALF_CLOSED_RESPONSE,
        _I.RESPOND: _P.IDLE, _I.RESPOND_UNREAD: _P.UNREAD, _I.RESPOND_LAST: _P.FLUSHING, _I.CLOSE: _P.LAST_RESPONSE,
        _I.CALLBACK_FAILED: _P.ABORTED, _I.WRITE_TIMEOUT: _P.ABORTED,
    },
    _P.UPGRADING: {
        _I.VIOLATION: _P.FLUSHING, _I.EOF: _P.HALF_CLOSED_RESPONSE,
        _I.RESPOND: _P.IDLE, _I.RESPOND_UNREAD: _P.UNREAD, _I.RESPOND_LAST: _P.FLUSHING, _I.ACCEPT: _P.OPEN,
        _I.CLOSE: _P.LAST_UPGRADE,
        _I.CALLBACK_FAILED: _P.ABORTED, _I.WRITE_TIMEOUT: _P.ABORTED,
    },
    _P.LAST_HEAD: {
        _I.BLANK: _P.FLUSHING, _I.HEAD: _P.LAST_HEAD, _I.BODY: _P.LAST_BODY, _I.REQUEST: _P.LAST_RESPONSE,
        _I.HANDSHAKE: _P.LAST_UPGRADE, _I.VIOLATION: _P.FLUSHING, _I.EOF: _P.CLOSED,
        _I.CLOSE: _P.LAST_HEAD,
        _I.HEAD_TIMEOUT: _P.FLUSHING, _I.CALLBACK_FAILED: _P.ABORTED, _I.WRITE_TIMEOUT: _P.ABORTED,
    },
    _P.LAST_BODY: {
        _I.BODY: _P.LAST_BODY, _I.REQUEST: _P.LAST_RESPONSE, _I.VIOLATION: _P.FLUSHING, _I.EOF: _P.CLOSED,
        _I.CLOSE: _P.LAST_BODY,
        _I.BODY_TIMEOUT: _P.FLUSHING, _I.CALLBACK_FAILED: _P.ABORTED, _I.WRITE_TIMEOUT: _P.ABORTED,
    },
    _P.LAST_RESPONSE: {
        _I.VIOLATION: _P.FLUSHING, _I.EOF: _P.LAST_RESPONSE,
        _I.RESPOND_LAST: _P.FLUSHING, _I.CLOSE: _P.LAST_RESPONSE,
        _I.CALLBACK_FAILED: _P.ABORTED, _I.WRITE_TIMEOUT: _P.ABORTED,
    },
    _P.LAST_UPGRADE: {
        _I.VIOLATION: _P.FLUSHING, _I.EOF: _P.LAST_RESPONSE,
        _I.RESPOND_LAST: _P.FLUSHING, _I.ACCEPT: _P.CLOSING, _I.CLOSE: _P.LAST_UPGRADE,
        _I.CALLBACK_FAILED: _P.ABORTED, _I.WRITE_TIMEOUT: _P.ABORTED,
    },
    _P.HALF_CLOSED: {
        _I.BLANK: _P.CLOSED, _I.HEAD: _P.CLOSED, _I.BODY: _P.CLOSED, _I.REQUEST: _P.HALF_CLOSED_RESPONSE,
        _I.HANDSHAKE: _P.HALF_CLOSED_RESPONSE, _I.VIOLATION: _P.CLOSED,
        _I.CLOSE: _P.HALF_CLOSED,
        _I.CALLBACK_FAILED: _P.ABORTED, _I.WRITE_TIMEOUT: _P.ABORTED,
    },
    _P.HALF_CLOSED_RESPONSE: {
        _I.EOF: _P.HALF_CLOSED_RESPONSE,
        _I.RESPOND: _P.CLOSED, _I.RESPOND_UNREAD: _P.HALF_CLOSED, _I.RESPOND_LAST: _P.CLOSED,
        _I.CLOSE: _P.HALF_CLOSED_RESPONSE,
        _I.WRITE_TIMEOUT: _P.ABORTED,
    },
    _P.OPEN: {
        _I.VIOLATION: _P.FLUSHING, _I.PEER_CLOSE: _P.FLUSHING, _I.EOF: _P.CLOSED,
        _I.SEND: _P.OPEN, _I.EXPIRE_AT: _P.OPEN, _I.CLOSE: _P.CLOSING,
        _I.OVERFLOW: _P.ABORTED, _I.PING_TIMEOUT: _P.FLUSHING, _I.FRAME_TIMEOUT: _P.FLUSHING, _I.WRITE_TIMEOUT: _P.ABORTED,
    },
    _P.CLOSING: {
        _I.VIOLATION: _P.FLUSHING, _I.PEER_CLOSE: _P.FLUSHING, _I.EOF: _P.CLOSED,
        _I.CLOSE: _P.CLOSING,
        _I.CLOSE_TIMEOUT: _P.ABORTED, _I.WRITE_TIMEOUT: _P.ABORTED,
    },
    _P.FLUSHING: {
        _I.EOF: _P.CLOSED,
        _I.RESPOND: _P.FLUSHING, _I.CLOSE: _P.FLUSHING, _I.WRITE_ENDED: _P.LINGERING,
        _I.WRITE_TIMEOUT: _P.ABORTED,
    },
    _P.LINGERING: {
        _I.EOF: _P.CLOSED,
        _I.RESPOND: _P.LINGERING, _I.CLOSE: _P.LINGERING,
        _I.LINGER_TIMEOUT: _P.CLOSED,
    },
    _P.CLOSED: {
        _I.EOF: _P.CLOSED,
        _I.RESPOND: _P.CLOSED, _I.CLOSE: _P.CLOSED,
        _I.WRITE_TIMEOUT: _P.ABORTED,
    },
    _P.ABORTED: {
        _I.EOF: _P.ABORTED,
        _I.RESPOND: _P.ABORTED, _I.CLOSE: _P.ABORTED,
    },
}  # fmt: skip
"""phase -> input -> phase, with the peer's bytes, the caller's commands, and deadlines on separate lines."""


class PhaseRow(NamedTuple):
    """The properties of a phase. `others`: deadlines that may run in addition to its `own` one."""

    meaning: str
    reading: Reading
    own: Deadline | None = None
    others: tuple[Deadline, ...] = (_D.WRITE,)
    wants: Wants = Wants.KEEP


_REQUESTS, _FRAMES, _KEPT, _DROPPED = Reading

PHASES: dict[Phase, PhaseRow] = {
    _P.NEW: PhaseRow("no byte of a request has arrived", _REQUESTS, _D.HEAD),
    _P.IDLE: PhaseRow("the response is queued, and no byte of the next request has arrived", _REQUESTS, _D.IDLE),
    _P.UNREAD: PhaseRow("the response is queued, and `next_events` reads the bytes that follow the request", _REQUESTS),
    _P.HEAD: PhaseRow("a request has begun", _REQUESTS, _D.HEAD),
    _P.BODY: PhaseRow("a request's head is complete", _REQUESTS, _D.BODY),
    _P.RESPONDING: PhaseRow("the caller has a request to respond to", _KEPT),
    _P.UPGRADING: PhaseRow("the caller has an opening handshake to respond to", _KEPT),
    _P.LAST_HEAD: PhaseRow("a request has begun and is the last one", _REQUESTS, _D.HEAD),
    _P.LAST_BODY: PhaseRow("the head of the last request is complete", _REQUESTS, _D.BODY),
    _P.LAST_RESPONSE: PhaseRow("the caller has the last request to respond to", _KEPT),
    _P.LAST_UPGRADE: PhaseRow("the caller has an opening handshake to respond to, the last request", _KEPT),
    _P.HALF_CLOSED: PhaseRow("the peer has shut its side, and `next_events` reads the bytes before that", _REQUESTS),
    _P.HALF_CLOSED_RESPONSE: PhaseRow("the peer has shut its side, and the caller has a request to respond to", _KEPT),
    _P.OPEN: PhaseRow("a WebSocket", _FRAMES, _D.PING, (_D.FRAME, _D.LIFETIME, _D.WRITE)),
    _P.CLOSING: PhaseRow("the server's close frame is queued, the peer's has not arrived (RFC 6455 7.1.2)", _FRAMES, _D.CLOSE),
    _P.FLUSHING: PhaseRow("queued bytes are sent, then the write side is shut", _DROPPED, wants=Wants.SHUT_WRITE),
    _P.LINGERING: PhaseRow("everything is sent; the server still reads, so that the peer is not reset", _DROPPED, _D.LINGER, ()),
    _P.CLOSED: PhaseRow("queued bytes are sent, then the socket is closed", _DROPPED, wants=Wants.CLOSE),
    _P.ABORTED: PhaseRow("the socket is closed at once", _DROPPED, None, (), Wants.ABORT),
}  # fmt: skip
"""phase -> its properties."""

MAY_RUN: dict[Phase, frozenset[Deadline]] = {
    phase: frozenset(row.others if row.own is None else (row.own, *row.others)) for phase, row in PHASES.items()
}
"""phase -> the deadlines that may run in it."""


def not_allowed(step: Input, phase: Phase) -> str:
    """Return the fault of a caller whose command `phase` does not allow: with the phases that do."""
    allowed = " or ".join(each.value for each, steps in TRANSITIONS.items() if step in steps)
    return f"{step.value} is not allowed: the connection is {phase.value}, not {allowed}"
