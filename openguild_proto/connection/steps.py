"""Maps decoded items and expired deadlines to an input of the state machine, a reply to queue and an event."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

import msgspec

from openguild_proto.connection.deadlines import Deadline
from openguild_proto.connection.phases import Input, Phase
from openguild_proto.errors import ErrorCode, Refusal
from openguild_proto.events import DeadlineExpired, Event, PeerClosed, PeerViolated, RequestReceived, WebSocketRequested
from openguild_proto.http.connection import HttpConnection
from openguild_proto.http.headers import HeaderPolicy
from openguild_proto.http.message import Request
from openguild_proto.http.reader import MissingPart
from openguild_proto.http.strictness import Rule
from openguild_proto.ws import handshake, reasons
from openguild_proto.ws.close_codes import CloseCode
from openguild_proto.ws.frames import close_frame
from openguild_proto.ws.reassembly import WsRule

MISSING: dict[MissingPart, Input] = {
    MissingPart.BEGINNING: Input.BLANK,
    MissingPart.HEAD: Input.HEAD,
    MissingPart.BODY: Input.BODY,
}
"""missing part of an incomplete request -> input."""

MAX_RULE_CHARS = 100  # of a rule's name in a close frame


Codes: TypeAlias = Mapping[str, int]
USUAL_CODES: Codes = MappingProxyType({})


class Step(NamedTuple):
    """One step of the state machine. `event` is None if there is none for the caller."""

    input: Input
    reply: bytes
    event: Event | None


def of_request(http: HttpConnection, item: Request | Rule, policy: HeaderPolicy) -> Step:
    """Return the step for a request, or for the rule that it broke."""
    if isinstance(item, Rule):
        return of_violation(http, item)
    if not handshake.wants_upgrade(item):
        return Step(Input.REQUEST, b"", received(item))
    refusal = handshake.check(item, policy)
    if refusal is None:
        return Step(Input.HANDSHAKE, b"", WebSocketRequested(msgspec.structs.replace(item, is_upgrade=True)))
    return _refused(http, refusal, "invalid_handshake")


def received(request: Request) -> Event:
    """Return the event for a request that is not an upgrade."""
    return RequestReceived(request)


def of_violation(http: HttpConnection, rule: Rule) -> Step:
    """Return the step for a broken rule. Its reply is the last response of the connection."""
    return _refused(http, Refusal(rule.code, rule.source), "malformed_request")


def _refused(http: HttpConnection, refusal: Refusal, reason: str) -> Step:
    reply, request_id = http.refuse(refusal)
    status = refusal.code.spec.status
    event = PeerViolated(refusal.message, refusal.reason or reason, status_hint=status, request_id=request_id)
    return Step(Input.VIOLATION, reply, event)


def of_last_frame(item: PeerClosed | WsRule, phase: Phase, codes: Codes) -> Step:
    """Return the step for a broken rule or for a close frame, which is echoed unless ours was sent first (RFC 6455 5.5.1).

    `codes`: close codes of the subprotocol that replace the usual ones, by the metric's reason.
    """
    if isinstance(item, PeerClosed):
        reply = close_frame(item.code, item.reason) if phase is Phase.OPEN else b""
        return Step(Input.PEER_CLOSE, reply, item)
    code = codes.get(item.reason, item.code)
    reply = close_frame(code, item.source[:MAX_RULE_CHARS]) if phase is Phase.OPEN else b""
    return Step(Input.VIOLATION, reply, PeerViolated(item.source, item.reason, close_hint=int(code)))


def of_deadline(name: Deadline, phase: Phase, http: HttpConnection | None, codes: Codes) -> Step:
    """Return the step for a deadline that ends the connection. Raises KeyError for LIFETIME, which the caller handles.

    `codes`: as in `of_last_frame`.
    """
    row = _DEADLINES[name]
    event: Event | None = None if name is Deadline.LINGER else DeadlineExpired(name.value, row.reason)
    if http is not None and phase is not Phase.NEW and name in {Deadline.HEAD, Deadline.BODY}:
        refusal = Refusal(ErrorCode.TIMEOUT)
        reply, request_id = http.refuse(refusal)
        event = DeadlineExpired(name.value, refusal.reason, refusal.code.spec.status, request_id)
        return Step(row.input, reply, event)
    reply = b"" if row.close is None else close_frame(codes.get(str(row.reason), row.close), row.text)
    return Step(row.input, reply, event)


class _DeadlineRow(NamedTuple):
    """The step of a deadline.

    `reason`: for the metric of rejections, if the peer caused it. `close` and `text`: code and reason of the close frame, if
    one is sent.
    """

    input: Input
    reason: str | None = None
    close: CloseCode | None = None
    text: str = ""


_DEADLINES: dict[Deadline, _DeadlineRow] = {
    Deadline.HEAD: _DeadlineRow(Input.HEAD_TIMEOUT),
    Deadline.BODY: _DeadlineRow(Input.BODY_TIMEOUT),
    Deadline.IDLE: _DeadlineRow(Input.IDLE_TIMEOUT),
    Deadline.WRITE: _DeadlineRow(Input.WRITE_TIMEOUT, "write_timeout"),
    Deadline.PING: _DeadlineRow(Input.PING_TIMEOUT, "ping_timeout", CloseCode.INTERNAL_ERROR, reasons.NO_PONG),
    Deadline.FRAME: _DeadlineRow(Input.FRAME_TIMEOUT, "frame_timeout", CloseCode.POLICY_VIOLATION, reasons.SLOW_FRAME),
    Deadline.CLOSE: _DeadlineRow(Input.CLOSE_TIMEOUT),
    Deadline.LINGER: _DeadlineRow(Input.LINGER_TIMEOUT),
}
