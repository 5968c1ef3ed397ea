"""The events of a connection. Faults of the peer are events, never exceptions (docs/embedding.md, "The call contract")."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from openguild_proto.http.message import Request


class RequestReceived(msgspec.Struct, frozen=True, gc=False):
    """A complete request that is not an upgrade.

    Call `respond`, now or later.
    """

    request: Request


class WebSocketRequested(msgspec.Struct, frozen=True, gc=False):
    """A valid WebSocket opening handshake.

    Call `accept`, or refuse it with `respond`.
    """

    request: Request


class TextReceived(msgspec.Struct, frozen=True, gc=False):
    """A complete text message: valid UTF-8, at most `max_message_bytes` long.

    Handle it. To reply call `send_text` or `send_bytes`.
    """

    text: str


class BytesReceived(msgspec.Struct, frozen=True, gc=False):
    """A complete binary message, at most `max_message_bytes` long.

    Handle it. To reply call `send_text` or `send_bytes`.
    """

    data: bytes


class PeerClosed(msgspec.Struct, frozen=True, gc=False):
    """The peer has sent a close frame. Our own is already sent or queued. `code` is None if the frame had none (RFC 6455 7.1.5).

    Send no more messages, and follow `wants`.
    """

    code: int | None
    reason: str


class PeerGone(msgspec.Struct, frozen=True, gc=False):
    """The peer has closed its side of the byte stream.

    Respond to the complete requests, and follow `wants`.
    """


class PeerViolated(msgspec.Struct, frozen=True, gc=False):
    """The peer broke a rule. The reply is queued, and all further bytes are ignored.

    Log `rule`, and follow `wants`.
    """

    rule: str  # "RFC 9112 6.1: Content-Length with Transfer-Encoding"
    reason: str  # rejection reason for the metric
    status_hint: int | None = None  # HTTP status of the reply
    close_hint: int | None = None  # WebSocket close code of the reply
    request_id: str = ""  # of the reply over HTTP


class DeadlineExpired(msgspec.Struct, frozen=True, gc=False):
    """A deadline has passed and ended the connection. The reply, if any, is queued.

    Log `name`, and follow `wants`.
    """

    name: str
    reason: str | None = None  # rejection reason for the metric, None unless the peer is to blame
    status_hint: int | None = None  # HTTP status of the reply
    request_id: str = ""  # of the reply over HTTP


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
"""What a connection reports: one of the Structs above."""
