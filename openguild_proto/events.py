"""What a connection reports. The peer's faults are events, never exceptions (docs/embedding.md, "The call contract")."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from openguild_proto.http.message import Request


class RequestReceived(msgspec.Struct, frozen=True, gc=False):
    """A whole request that is no upgrade: answer it with `respond`."""

    request: Request


class WebSocketRequested(msgspec.Struct, frozen=True, gc=False):
    """A valid opening handshake: `accept` it, or refuse it with `respond`."""

    request: Request


class TextReceived(msgspec.Struct, frozen=True, gc=False):
    """A whole text message, within the limit and valid UTF-8."""

    text: str


class BytesReceived(msgspec.Struct, frozen=True, gc=False):
    """A whole binary message, within the limit."""

    data: bytes


class PeerClosed(msgspec.Struct, frozen=True, gc=False):
    """The peer's close frame; ours is queued or was sent before. `code` None: the frame had none (RFC 6455 7.1.5)."""

    code: int | None
    reason: str


class PeerGone(msgspec.Struct, frozen=True, gc=False):
    """The peer has ended its side of the byte stream."""


class PeerViolated(msgspec.Struct, frozen=True, gc=False):
    """The peer broke a rule. The reply is queued, the connection is closing and interprets nothing further."""

    rule: str  # "RFC 9112 6.1: Content-Length with Transfer-Encoding"
    reason: str  # rejection reason for the metric
    status_hint: int | None = None  # HTTP status of the reply
    close_hint: int | None = None  # WebSocket close code of the reply


class DeadlineExpired(msgspec.Struct, frozen=True, gc=False):
    """A deadline has passed and ended the connection; what is to be said is queued."""

    name: str
    reason: str | None = None  # rejection reason for the metric, where the peer is to blame
    status_hint: int | None = None  # HTTP status of the reply


Event: TypeAlias = (
    RequestReceived
    | WebSocketRequested
    | TextReceived
    | BytesReceived
    | PeerClosed
    | PeerGone
    | PeerViolated
    | DeadlineExpired
)
