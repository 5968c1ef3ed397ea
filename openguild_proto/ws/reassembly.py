"""Splits the peer's bytes into whole frames for wsproto, and bounds messages.

wsproto bounds neither unfinished messages nor their fragments, and buffers a frame of any announced length. Here the header
alone is enough to refuse a frame: mask, reserved bits, opcode, length. So the memory of a connection is bounded by one
message, and the result does not depend on how TCP splits the bytes.
"""

from __future__ import annotations

from typing import NamedTuple

from openguild_proto.limits import MAX_CONTROL_PAYLOAD_BYTES
from openguild_proto.ws.close_codes import CloseCode


class WsRule(NamedTuple):
    """A broken rule: its source and its close code."""

    source: str
    code: CloseCode
    reason: str = "malformed_frame"  # for the metric


RESERVED_BITS = WsRule("RFC 6455 5.2: reserved bits without an extension", CloseCode.PROTOCOL_ERROR)
OPCODE = WsRule("RFC 6455 5.2: unknown opcode", CloseCode.PROTOCOL_ERROR)
UNMASKED = WsRule("RFC 6455 5.1: a client frame must be masked", CloseCode.PROTOCOL_ERROR)
CONTROL_FRAME = WsRule("RFC 6455 5.5: a control frame is short and unfragmented", CloseCode.PROTOCOL_ERROR)
LENGTH_FORM = WsRule("RFC 6455 5.2: the length must use the shortest form", CloseCode.PROTOCOL_ERROR)
TOO_BIG = WsRule("RFC 6455 10.4: the message is over the limit", CloseCode.MESSAGE_TOO_BIG)
TOO_MANY_FRAGMENTS = WsRule("RFC 6455 10.4: the message has too many fragments", CloseCode.MESSAGE_TOO_BIG)
SEQUENCE = WsRule("RFC 6455 5.4: fragments out of sequence", CloseCode.PROTOCOL_ERROR)
FRAME_RATE = WsRule("RFC 6455 10.4: more frames than the limit", CloseCode.POLICY_VIOLATION, "frame_rate_limit")

_OPCODES = frozenset({0x0, 0x1, 0x2, 0x8, 0x9, 0xA})


class FrameCutter:
    """Splits bytes into whole frames. Buffers at most one unfinished frame, within the message limit.

    The bytes of an unfinished frame are collected in a separate buffer, so that each is copied about once, however many
    pieces arrive.
    """

    __slots__ = (
        "_at", "_begun", "_begun_size", "_buffer", "_fragments", "_max_fragments", "_max_message_bytes", "_message_bytes",
    )  # fmt: skip

    def __init__(self, max_message_bytes: int, max_fragments: int) -> None:
        self._buffer = b""
        self._at = 0  # start of the next frame
        self._begun: bytearray | None = None  # an incomplete frame whose length is known
        self._begun_size = 0  # the size of that whole frame
        self._max_message_bytes = max_message_bytes
        self._max_fragments = max_fragments
        self._message_bytes = 0  # of the unfinished message
        self._fragments = 0

    def feed(self, data: bytes) -> None:
        """Buffer `data`, a piece of the byte stream of any size."""
        if self._begun is None:
            self._buffer = self._buffer[self._at :] + data
            self._at = 0
            return
        self._begun += data
        if len(self._begun) >= self._begun_size:
            self._buffer, self._begun = bytes(self._begun), None

    @property
    def in_message(self) -> bool:
        """Whether a fragmented message is incomplete."""
        return self._fragments > 0

    @property
    def in_frame(self) -> bool:
        """Whether a frame is incomplete."""
        return self._begun is not None or self._at < len(self._buffer)

    def next_frame(self) -> bytes | WsRule | None:
        """Return the next whole frame, the rule that it breaks, or None if more bytes are needed."""
        buffer, at = self._buffer, self._at
        available = len(buffer) - at
        if available == 0:
            self._buffer, self._at = b"", 0
            return None
        first = buffer[at]
        opcode = first & 0x0F
        if first & 0x70:
            return RESERVED_BITS
        if opcode not in _OPCODES:
            return OPCODE
        if available < 2:
            return None
        if not buffer[at + 1] & 0x80:
            return UNMASKED
        size = buffer[at + 1] & 0x7F
        header = 6
        if opcode & 0x08:
            if size > MAX_CONTROL_PAYLOAD_BYTES or not first & 0x80:
                return CONTROL_FRAME
        elif size >= 126:
            extra = 2 if size == 126 else 8
            if available < 2 + extra:
                return None
            size = int.from_bytes(buffer[at + 2 : at + 2 + extra], "big")
            header += extra
            if size < 126 or (extra == 8 and size < 65_536) or size >> 63:
                return LENGTH_FORM
        rule = None if opcode & 0x08 else self._check_message(opcode, size)
        if rule is not None:
            return rule
        if available < header + size:
            self._begun, self._begun_size = bytearray(buffer[at:]), header + size
            self._buffer, self._at = b"", 0
            return None
        if not opcode & 0x08:
            self._count(size, last=bool(first & 0x80))
        self._at = at + header + size
        return buffer[at : self._at]

    def _check_message(self, opcode: int, size: int) -> WsRule | None:
        if (opcode == 0) != (self._fragments > 0):
            return SEQUENCE
        if self._message_bytes + size > self._max_message_bytes:
            return TOO_BIG
        return TOO_MANY_FRAGMENTS if self._fragments >= self._max_fragments else None

    def _count(self, size: int, *, last: bool) -> None:
        self._message_bytes = 0 if last else self._message_bytes + size
        self._fragments = 0 if last else self._fragments + 1
