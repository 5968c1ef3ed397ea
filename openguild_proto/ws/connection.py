"""Decodes the frames of an open WebSocket. The `FrameCutter` and the wsproto object exist only while a burst is decoded."""

from __future__ import annotations

from typing import AnyStr, TypeAlias, cast

from wsproto import events as wsproto_events
from wsproto.connection import Connection, ConnectionState, ConnectionType

from openguild_proto.events import BytesReceived, PeerClosed, TextReceived
from openguild_proto.limits import Limits
from openguild_proto.ws.close_codes import CloseCode, is_sendable
from openguild_proto.ws.reassembly import FRAME_RATE, FrameCutter, WsRule


class PingReceived:
    """An internal item: a ping that needs a pong."""

    __slots__ = ("payload",)

    def __init__(self, payload: bytes) -> None:
        self.payload = payload


NOT_UTF_8 = WsRule("RFC 6455 8.1: text or a close reason that is not UTF-8", CloseCode.INVALID_PAYLOAD)
MALFORMED = WsRule(
    "RFC 6455 5.5.1: malformed close frame", CloseCode.PROTOCOL_ERROR
)  # the only fault that reassembly.py does not detect
_FAULTS: dict[int, WsRule] = {CloseCode.INVALID_PAYLOAD: NOT_UTF_8}

Decoded: TypeAlias = TextReceived | BytesReceived | PeerClosed | PingReceived | WsRule


class WebSocketDecoder:
    """A `Decoder` of messages. It decodes close frames itself, and other frames with wsproto.

    No item follows a PeerClosed or a WsRule. `missed_pongs`: pings since the last pong. The sender of the pings increments
    it; a pong resets it to 0.
    """

    __slots__ = (
        "_ahead", "_cutter", "_decoder", "_frame_arrived", "_limits", "_paid_until", "_parts", "missed_pongs",
    )  # fmt: skip

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._cutter: FrameCutter | None = None  # kept only inside a frame or a message
        self._paid_until = 0.0  # each frame adds its share of a minute; the limit is one minute ahead
        self._decoder: Connection | None = None  # kept only inside a fragmented message
        self._parts: list[str] | list[bytes] | None = None  # of a fragmented message
        self._frame_arrived = False
        self._ahead: Decoded | None = None  # put back by the caller
        self.missed_pongs = 0

    def feed(self, data: bytes) -> None:
        """Buffer `data`, a piece of the byte stream of any size."""
        if self._cutter is None:
            self._cutter = FrameCutter(self._limits.max_message_bytes, self._limits.max_message_fragments)
        self._cutter.feed(data)

    @property
    def in_frame(self) -> bool:
        """Whether a frame is incomplete. False while an item is put back, because the bytes after it are not read."""
        return self._ahead is None and self._cutter is not None and self._cutter.in_frame

    def take_frame_arrived(self) -> bool:
        """Return whether a whole frame has arrived since the last call."""
        arrived, self._frame_arrived = self._frame_arrived, False
        return arrived

    def put_back(self, item: Decoded) -> None:
        """Make `item` the next one again, because events before it must be handled first."""
        self._ahead = item

    def next_item(self, now: float) -> Decoded | None:
        """Return the next item, None if more bytes are needed. Counts frames at `now`, monotonic seconds."""
        if self._ahead is not None:
            item, self._ahead = self._ahead, None
            return item
        cutter = self._cutter
        if cutter is None:
            return None
        while (frame := cutter.next_frame()) is not None:
            if isinstance(frame, WsRule):
                return frame
            self._frame_arrived = True
            if self._limits.max_frames_per_minute and self._is_over_rate(now):
                return FRAME_RATE
            if frame[0] & 0x0F == 0x8 and len(frame) > 6:
                return _closed(frame)
            decoded = self._by_wsproto(frame)
            if decoded is not None:
                return decoded
        if not cutter.in_message:
            self._decoder = None
            if not cutter.in_frame:
                self._cutter = None
        return None

    def _by_wsproto(self, frame: bytes) -> Decoded | None:
        """Decode one whole frame with wsproto."""
        if self._decoder is None:
            self._decoder = Connection(ConnectionType.SERVER)
        self._decoder.receive_data(frame)
        decoded: Decoded | None = None
        for event in self._decoder.events():
            decoded = self._decode(event)
        return decoded

    def _is_over_rate(self, now: float) -> bool:
        """Count one frame, and return whether the rate is over the limit."""
        frame_secs = 60.0 / self._limits.max_frames_per_minute
        self._paid_until = max(self._paid_until, now) + frame_secs
        return self._paid_until - now > 60.0 + frame_secs / 2

    def _decode(self, event: wsproto_events.Event) -> Decoded | None:
        match event:
            case wsproto_events.TextMessage(data=text, message_finished=finished):
                texts = self._with(text)
                if finished:
                    return TextReceived("".join(texts))
                self._parts = texts
            case wsproto_events.BytesMessage(data=data, message_finished=finished):
                chunks = self._with(bytes(data))
                if finished:
                    return BytesReceived(b"".join(chunks))
                self._parts = chunks
            case wsproto_events.Ping(payload=payload):
                return PingReceived(bytes(payload))
            case wsproto_events.Pong():
                self.missed_pongs = 0
            case wsproto_events.CloseConnection(code=code, reason=reason):
                if self._decoder is not None and self._decoder.state is ConnectionState.OPEN:
                    # wsproto reports a framing fault as a close; its text may be that of a Python exception, so drop it
                    return _FAULTS.get(code, MALFORMED)
                return PeerClosed(None if code == 1005 else int(code), reason or "")
        return None

    def _with(self, part: AnyStr) -> list[AnyStr]:
        """Return the parts of the message so far, which have the same type (RFC 6455 5.4), and this one."""
        parts = cast("list[AnyStr] | None", self._parts)
        self._parts = None
        if parts is None:
            return [part]
        parts.append(part)
        return parts


def _closed(frame: bytes) -> PeerClosed | WsRule:
    """Decode a whole close frame with a body. wsproto does not know 1014, which IANA registered (RFC 6455 7.4)."""
    mask, body = frame[2:6], frame[6:]
    payload = bytes(byte ^ mask[place % 4] for place, byte in enumerate(body))
    code = int.from_bytes(payload[:2], "big")
    if len(payload) < 2 or not is_sendable(code):
        return MALFORMED
    try:
        return PeerClosed(code, payload[2:].decode())
    except UnicodeDecodeError:
        return NOT_UTF_8
