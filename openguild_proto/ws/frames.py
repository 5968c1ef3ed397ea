"""Encodes server frames: unmasked and unfragmented (RFC 6455 5.2). One frame can be sent to any number of sockets."""

from __future__ import annotations

import struct

from openguild_proto.errors import LocalProtocolError
from openguild_proto.limits import MAX_CLOSE_REASON_BYTES, MAX_CONTROL_PAYLOAD_BYTES
from openguild_proto.ws.close_codes import is_sendable

FIN_TEXT, FIN_BINARY, FIN_CLOSE, FIN_PING, FIN_PONG = 0x81, 0x82, 0x88, 0x89, 0x8A


def _frame(first: int, payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        return bytes((first, size)) + payload
    if size < 65_536:
        return struct.pack("!BBH", first, 126, size) + payload
    return struct.pack("!BBQ", first, 127, size) + payload


def text_frame(payload: bytes) -> bytes:
    """Return a text message in one frame. `payload` must be UTF-8, which is not checked."""
    return _frame(FIN_TEXT, payload)


def frame_payload(frame: bytes) -> bytes:
    """Return the payload of a frame that this module built."""
    return frame[{126: 4, 127: 10}.get(frame[1], 2) :]


def message_end(frames: bytes, begin: int) -> int:
    """Return the offset of the end of the frame that begins at `begin`. `frames`: frames that this module built."""
    size = frames[begin + 1]
    if size < 126:
        return begin + 2 + size
    width = 2 if size == 126 else 8
    return begin + 2 + width + int.from_bytes(frames[begin + 2 : begin + 2 + width], "big")


def binary_frame(payload: bytes) -> bytes:
    """Return a binary message in one frame (RFC 6455 5.6)."""
    return _frame(FIN_BINARY, payload)


def ping_frame(payload: bytes = b"") -> bytes:
    """Return a ping (RFC 6455 5.5.2). Raises LocalProtocolError for a payload of more than 125 bytes."""
    return _control(FIN_PING, payload)


def pong_frame(payload: bytes = b"") -> bytes:
    """Return a pong (RFC 6455 5.5.3). Raises LocalProtocolError for a payload of more than 125 bytes."""
    return _control(FIN_PONG, payload)


def close_frame(code: int | None, reason: str = "") -> bytes:
    """Return a close frame, without a body if `code` is None.

    Raises LocalProtocolError for a code that may not be sent (wsproto would send 1000) and for a reason that is longer than
    123 bytes or has a lone surrogate.
    """
    if code is None:
        return _control(FIN_CLOSE, b"")
    if not is_sendable(code):
        raise LocalProtocolError(f"close code {code} must not be sent")
    try:
        encoded = reason.encode()
    except UnicodeEncodeError:
        raise LocalProtocolError("a close reason is UTF-8, which has no lone surrogates") from None
    if len(encoded) > MAX_CLOSE_REASON_BYTES:
        raise LocalProtocolError("a close reason has at most 123 bytes")
    return _control(FIN_CLOSE, struct.pack("!H", code) + encoded)


def _control(first: int, payload: bytes) -> bytes:
    if len(payload) > MAX_CONTROL_PAYLOAD_BYTES:
        raise LocalProtocolError("a control frame carries at most 125 bytes")
    return _frame(first, payload)
