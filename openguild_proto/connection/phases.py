"""The whole machine of a connection, as data: two literal tables under three rules.

1. `TRANSITIONS` says what an input leads to. What has no line in a phase is out of turn there: a command of the caller
   raises LocalProtocolError and changes nothing. The peer's bytes and the deadlines cannot be out of turn.
2. `PHASES` says what holds within a phase. Entering one sets its own deadline, unless that runs already, and stops
   every deadline that has no place there.
3. A phase leads to a later one or, between two requests, back to an earlier one. After FLUSHING nothing of the peer is
   interpreted any more, so that there is one answer to a fault and nothing behind it.

There is nothing beside the phase that says how a connection goes on. docs/embedding.md shows both tables.
"""

from __future__ import annotations

from enum import Enum, StrEnum
from typing import NamedTuple

from openguild_proto.connection.deadlines import Deadline


class Phase(StrEnum):
    """What a connection speaks, what it waits for, and how far its end has come."""

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
    """What moves a connection."""

    # found in the peer's bytes
    BLANK = "blank"  # nothing of a request: an empty line before one at most (RFC 9112 2.2)
    HEAD = "head"  # a head has begun
    BODY = "body"  # a head is whole, and its body is not
    REQUEST = "request"  # a whole request that is no upgrade
    HANDSHAKE = "handshake"  # a valid opening handshake (RFC 6455 4.2.1)
    VIOLATION = "violation"  # a broken rule
    PEER_CLOSE = "peer_close"  # the peer's close frame
    EOF = "eof"  # the peer has ended its side
    # of the caller
    RESPOND = "respond"  # the connection may go on
    RESPOND_UNREAD = "respond_unread"  # it may, and bytes of the next request are here
    RESPOND_LAST = "respond_last"  # it may not
    ACCEPT = "accept"
    SEND = "send"
    EXPIRE_AT = "expire_at"
    CLOSE = "close"
    WRITE_ENDED = "write_ended"  # the owner of the socket has shut its write side
    # deadlines and bounds
    OVERFLOW = "overflow"  # more waits for the peer than may
    HEAD_TIMEOUT = "head_timeout"
    BODY_TIMEOUT = "body_timeout"
    IDLE_TIMEOUT = "idle_timeout"
    WRITE_TIMEOUT = "write_timeout"
    PING_TIMEOUT = "ping_timeout"  # too many pings have no pong
    FRAME_TIMEOUT = "frame_timeout"
    CLOSE_TIMEOUT = "close_timeout"
    LINGER_TIMEOUT = "linger_timeout"


class Reading(Enum):
    """What becomes of the peer's bytes."""

    REQUESTS = "requests"  # they are read as HTTP
    FRAMES = "frames"  # they are read as WebSocket
    KEPT = "kept"  # they wait, within a bound, until the caller has answered the request it has
    DROPPED = "dropped"  # nobody reads them


class Wants(Enum):
    """What the owner of the socket is to do; all but ABORT once nothing waits to be sent."""

    KEEP = "keep"  # go on
    SHUT_WRITE = "shut_write"  # shut the write side, say so with `write_ended`, go on reading; or just close the socket
    CLOSE = "close"  # close the socket: nothing is lost by it
    ABORT = "abort"  # close the socket at once, whatever waits


_P, _I, _D = Phase, Input, Deadline

TRANSITIONS: dict[Phase, dict[Input, Phase]] = {
    _P.NEW: {
        _I.BLANK: _P.NEW, _I.HEAD: _P.HEAD, _I.BODY: _P.BODY, _I.REQUEST: _P.RESPONDING, _I.HANDSHAKE: _P.UPGRADING,
        _I.VIOLATION: _P.FLUSHING, _I.EOF: _P.CLOSED,
        _I.CLOSE: _P.FLUSHING,
        _I.HEAD_TIMEOUT: _P.FLUSHING, _I.WRITE_TIMEOUT: _P.ABORTED,
    },
    _P.IDLE: {
        _I.BLANK: _P.IDLE, _I.HEAD: _P.HEAD, _I.BODY: _P.BODY, _I.REQUEST: _P.RESPONDING, _I.HANDSHAKE: _P.UPGRADING,
        _I.VIOLATION: _P.FLUSHING, _I.EOF: _P.CLOSED,
        _I.CLOSE: _P.FLUSHING,
        _I.IDLE_TIMEOUT: _P.FLUSHING, _I.WRITE_TIMEOUT: _P.ABORTED,
    },
    _P.UNREAD: {
        _I.BLANK: _P.IDLE, _I.HEAD: _P.HEAD, _I.BODY: _P.BODY, _I.REQUEST: _P.RESPONDING, _I.HANDSHAKE: _P.UPGRADING,
        _I.VIOLATION: _P.FLUSHING,
        _I.CLOSE: _P.LAST_HEAD,
        _I.WRITE_TIMEOUT: _P.ABORTED,
    },
    _P.HEAD: {
        _I.BLANK: _P.NEW, _I.HEAD: _P.HEAD, _I.BODY: _P.BODY, _I.REQUEST: _P.RESPONDING, _I.HANDSHAKE: _P.UPGRADING,
        _I.VIOLATION: _P.FLUSHING, _I.EOF: _P.CLOSED,
        _I.CLOSE: _P.LAST_HEAD,
        _I.HEAD_TIMEOUT: _P.FLUSHING, _I.WRITE_TIMEOUT: _P.ABORTED,
    },
    _P.BODY: {
        _I.BODY: _P.BODY, _I.REQUEST: _P.RESPONDING, _I.VIOLATION: _P.FLUSHING, _I.EOF: _P.CLOSED,
        _I.CLOSE: _P.LAST_BODY,
        _I.BODY_TIMEOUT: _P.FLUSHING, _I.WRITE_TIMEOUT: _P.ABORTED,
    },
    _P.RESPONDING: {
        _I.VIOLATION: _P.FLUSHING, _I.EOF: _P.HALF_CLOSED_RESPONSE,
        _I.RESPOND: _P.IDLE, _I.RESPOND_UNREAD: _P.UNREAD, _I.RESPOND_LAST: _P.FLUSHING, _I.CLOSE: _P.LAST_RESPONSE,
        _I.WRITE_TIMEOUT: _P.ABORTED,
    },
    _P.UPGRADING: {
        _I.VIOLATION: _P.FLUSHING, _I.EOF: _P.HALF_CLOSED_RESPONSE,
        _I.RESPOND: _P.IDLE, _I.RESPOND_UNREAD: _P.UNREAD, _I.RESPOND_LAST: _P.FLUSHING, _I.ACCEPT: _P.OPEN,
        _I.CLOSE: _P.LAST_UPGRADE,
        _I.WRITE_TIMEOUT: _P.ABORTED,
    },
    _P.LAST_HEAD: {
        _I.BLANK: _P.FLUSHING, _I.HEAD: _P.LAST_HEAD, _I.BODY: _P.LAST_BODY, _I.REQUEST: _P.LAST_RESPONSE,
        _I.HANDSHAKE: _P.LAST_UPGRADE, _I.VIOLATION: _P.FLUSHING, _I.EOF: _P.CLOSED,
        _I.CLOSE: _P.LAST_HEAD,
        _I.HEAD_TIMEOUT: _P.FLUSHING, _I.WRITE_TIMEOUT: _P.ABORTED,
    },
    _P.LAST_BODY: {
        _I.BODY: _P.LAST_BODY, _I.REQUEST: _P.LAST_RESPONSE, _I.VIOLATION: _P.FLUSHING, _I.EOF: _P.CLOSED,
        _I.CLOSE: _P.LAST_BODY,
        _I.BODY_TIMEOUT: _P.FLUSHING, _I.WRITE_TIMEOUT: _P.ABORTED,
    },
    _P.LAST_RESPONSE: {
        _I.VIOLATION: _P.FLUSHING, _I.EOF: _P.LAST_RESPONSE,
        _I.RESPOND_LAST: _P.FLUSHING, _I.CLOSE: _P.LAST_RESPONSE,
        _I.WRITE_TIMEOUT: _P.ABORTED,
    },
    _P.LAST_UPGRADE: {
        _I.VIOLATION: _P.FLUSHING, _I.EOF: _P.LAST_RESPONSE,
        _I.RESPOND_LAST: _P.FLUSHING, _I.ACCEPT: _P.OPEN, _I.CLOSE: _P.LAST_UPGRADE,
        _I.WRITE_TIMEOUT: _P.ABORTED,
    },
    _P.HALF_CLOSED: {
        _I.BLANK: _P.CLOSED, _I.HEAD: _P.CLOSED, _I.BODY: _P.CLOSED, _I.REQUEST: _P.HALF_CLOSED_RESPONSE,
        _I.HANDSHAKE: _P.HALF_CLOSED_RESPONSE, _I.VIOLATION: _P.CLOSED,
        _I.CLOSE: _P.HALF_CLOSED,
        _I.WRITE_TIMEOUT: _P.ABORTED,
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
"""phase -> input -> phase: the peer's bytes, the caller's commands, deadlines and bounds, each on lines of their own."""


class PhaseRow(NamedTuple):
    """What holds within a phase. `others`: deadlines that may run there beside its `own` one."""

    meaning: str
    reading: Reading
    own: Deadline | None = None
    others: tuple[Deadline, ...] = (_D.WRITE,)
    wants: Wants = Wants.KEEP


_REQUESTS, _FRAMES, _KEPT, _DROPPED = Reading

PHASES: dict[Phase, PhaseRow] = {
    _P.NEW: PhaseRow("nothing of a request has come", _REQUESTS, _D.HEAD),
    _P.IDLE: PhaseRow("a request was answered, and nothing of the next one has come", _REQUESTS, _D.IDLE),
    _P.UNREAD: PhaseRow("a request was answered, and `next_events` reads what came behind it", _REQUESTS),
    _P.HEAD: PhaseRow("a request has begun", _REQUESTS, _D.HEAD),
    _P.BODY: PhaseRow("a request's head is read", _REQUESTS, _D.BODY),
    _P.RESPONDING: PhaseRow("a request is with the caller", _KEPT),
    _P.UPGRADING: PhaseRow("an opening handshake is with the caller", _KEPT),
    _P.LAST_HEAD: PhaseRow("a request has begun and will be the last one", _REQUESTS, _D.HEAD),
    _P.LAST_BODY: PhaseRow("the head of the last request is read", _REQUESTS, _D.BODY),
    _P.LAST_RESPONSE: PhaseRow("the last request is with the caller", _KEPT),
    _P.LAST_UPGRADE: PhaseRow("an opening handshake is with the caller, and will be the last request", _KEPT),
    _P.HALF_CLOSED: PhaseRow("the peer has ended its side, and `next_events` reads what came before", _REQUESTS),
    _P.HALF_CLOSED_RESPONSE: PhaseRow("the peer has ended its side, and a request of it is with the caller", _KEPT),
    _P.OPEN: PhaseRow("a WebSocket", _FRAMES, _D.PING, (_D.FRAME, _D.LIFETIME, _D.WRITE)),
    _P.CLOSING: PhaseRow("our close frame is queued, the peer's is awaited (RFC 6455 7.1.2)", _FRAMES, _D.CLOSE),
    _P.FLUSHING: PhaseRow("what waits leaves, then the write side is shut", _DROPPED, wants=Wants.SHUT_WRITE),
    _P.LINGERING: PhaseRow("all is sent; the peer may still send, and is not cut off", _DROPPED, _D.LINGER, ()),
    _P.CLOSED: PhaseRow("what waits leaves, then the socket is closed", _DROPPED, wants=Wants.CLOSE),
    _P.ABORTED: PhaseRow("the socket is closed, whatever waits", _DROPPED, None, (), Wants.ABORT),
}  # fmt: skip
"""phase -> what holds within it."""

MAY_RUN: dict[Phase, frozenset[Deadline]] = {
    phase: frozenset(row.others if row.own is None else (row.own, *row.others)) for phase, row in PHASES.items()
}
"""phase -> the deadlines that may run in it."""
