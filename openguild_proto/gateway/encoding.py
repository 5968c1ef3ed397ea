"""Encodes frames as messages. Only this module distinguishes JSON in text from MessagePack in binary (PROTOCOL 15.1.2)."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, NamedTuple, get_args

import msgspec

from openguild_proto.errors import ErrorCode
from openguild_proto.gateway import readable_json, readable_msgpack
from openguild_proto.gateway.frames import AnyFrame, ClientFrame, Ref, ServerFrame
from openguild_proto.limits import MAX_CLOSE_REASON_BYTES
from openguild_proto.schemas.shapes import MAX_PROBLEM_CHARS, shape_problem
from openguild_proto.ws.frames import binary_frame, frame_payload, text_frame


class WrongKind(Exception):
    """A text message was received where the subprotocol uses binary messages, or the reverse."""


class MalformedFrame(Exception):
    """A message is not a valid frame. `ref`: the `ref` found in it, None if it has none.

    `code` VALIDATION: `problem` is a message of msgspec. INVALID_JSON: `problem` is a sentence.
    """

    def __init__(self, problem: str, ref: int | None = None, code: ErrorCode = ErrorCode.VALIDATION) -> None:
        super().__init__(problem)
        self.problem = problem
        self.ref = ref
        self.code = code

    @property
    def close_reason(self) -> str:
        """Return the reason for a close frame, for messages that cannot be answered with an `err`."""
        is_shape = self.code is ErrorCode.VALIDATION
        problem = " ".join(shape_problem(self.problem, "the frame", ClientFrame)) if is_shape else self.problem
        return f"malformed frame: {problem}".encode(errors="replace")[:MAX_CLOSE_REASON_BYTES].decode(errors="ignore")


class _Referred(msgspec.Struct):
    """The member searched for in a message that is not a valid frame."""

    ref: Ref


class _Typed(msgspec.Struct):
    """The member that every frame has."""

    type: str


class _Format(NamedTuple):
    """The functions of an encoding."""

    encode: Callable[[Any], bytes]
    of_client: Callable[[bytes], ClientFrame]
    of_server: Callable[[bytes], ServerFrame]
    referred: Callable[[bytes], _Referred]
    typed: Callable[[bytes], _Typed]
    framed: Callable[[bytes], bytes]


MAX_NESTED_BYTES = 4_096  # a `ref` is not searched for in longer messages that are nested too deep: it takes long
_TOO_DEEP = "the frame is nested too deep"
_FAULTS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_json_encode, _msgpack_encode = msgspec.json.Encoder().encode, msgspec.msgpack.Encoder().encode
_msgpack_any = msgspec.msgpack.Decoder().decode
_FORMATS = (
    _Format(
        _json_encode,
        msgspec.json.Decoder(ClientFrame).decode,
        msgspec.json.Decoder(ServerFrame).decode,
        msgspec.json.Decoder(_Referred).decode,
        msgspec.json.Decoder(_Typed).decode,
        text_frame,
    ),
    _Format(
        _msgpack_encode,
        msgspec.msgpack.Decoder(ClientFrame).decode,
        msgspec.msgpack.Decoder(ServerFrame).decode,
        msgspec.msgpack.Decoder(_Referred).decode,
        msgspec.msgpack.Decoder(_Typed).decode,
        binary_frame,
    ),
)
SERVER_TYPES = frozenset(frame.__struct_config__.tag for frame in get_args(ServerFrame))


class Encoding(Enum):
    """An encoding of frames. The value is the subprotocol that clients offer."""

    JSON = "openguild.v2"
    MSGPACK = "openguild.v2.msgpack"

    @property
    def _format(self) -> _Format:
        return _FORMATS[self is Encoding.MSGPACK]

    # --- frames --------------------------------------------------------------------------------------

    def encode(self, frame: AnyFrame) -> bytes:
        """Return the payload of a frame."""
        return self._format.encode(frame)

    def client_payload(self, frame: ClientFrame) -> str | bytes:
        """Return a client's frame as the payload of a message: `str` for text, `bytes` for binary."""
        payload = self._format.encode(frame)
        return payload.decode() if self is Encoding.JSON else payload

    def message(self, frame: ServerFrame) -> bytes:
        """Return a frame of the server as a whole WebSocket message."""
        found = self._format
        return found.framed(found.encode(frame))

    def decode_client(self, payload: str | bytes) -> ClientFrame:
        """Parse a client's message: text as `str`, binary as `bytes`. Raises WrongKind, MalformedFrame."""
        data = self._checked(payload)
        try:
            return self._format.of_client(data)
        except msgspec.ValidationError as fault:
            problem = str(fault)
        except _FAULTS:
            problem = None
        if problem is not None and (ref := self._find_ref(data)) is not None:
            raise MalformedFrame(problem, ref)
        unparsed = self._unparsed(data)
        raise unparsed if problem is None or unparsed.ref is not None else MalformedFrame(problem)

    def decode_server(self, payload: str | bytes) -> ServerFrame | None:
        """Parse a server's message. Raises WrongKind, MalformedFrame.

        Returns None for a frame type of a newer release (PROTOCOL 13.1.1).
        """
        data = self._checked(payload)
        try:
            return self._format.of_server(data)
        except _FAULTS as fault:
            problem = str(fault)[:MAX_PROBLEM_CHARS]
        if self._is_unknown(data):
            return None
        raise MalformedFrame(problem)

    def _is_unknown(self, data: bytes) -> bool:
        try:
            return self._format.typed(data).type not in SERVER_TYPES
        except _FAULTS:
            return False

    def _checked(self, payload: str | bytes) -> bytes:
        if isinstance(payload, str) is (self is Encoding.MSGPACK):
            raise WrongKind("a text message" if isinstance(payload, str) else "a binary message")
        return payload.encode() if isinstance(payload, str) else payload

    def _find_ref(self, data: bytes) -> int | None:
        try:
            return self._format.referred(data).ref
        except _FAULTS:
            return None

    def _unparsed(self, data: bytes) -> MalformedFrame:
        """Return the fault of a message that the HTTP API would answer with `invalid_json`, with its `ref` if one is found."""
        if self is Encoding.MSGPACK:
            ref, problem = self._find_ref_in_unparsed_msgpack(data)
        else:
            ref, problem = self._find_ref_in_unparsed_json(data)
        return MalformedFrame(problem, ref, ErrorCode.INVALID_JSON)

    def _find_ref_in_unparsed_msgpack(self, data: bytes) -> tuple[int | None, str]:
        try:
            return self._format.referred(data).ref, "the frame contains a string that is not UTF-8"
        except RecursionError:
            return self._find_ref_in_nested(data, readable_msgpack.without_depth), _TOO_DEEP
        except _FAULTS:
            return None, "the frame is not valid MessagePack"

    def _find_ref_in_unparsed_json(self, data: bytes) -> tuple[int | None, str]:
        readable = readable_json.without_lone_surrogates(data)
        try:
            return self._format.referred(readable).ref, "the frame contains a lone surrogate"
        except RecursionError:
            return self._find_ref_in_nested(readable, readable_json.without_depth), _TOO_DEEP
        except msgspec.DecodeError:
            return None, "the frame is not valid JSON"

    def _find_ref_in_nested(self, data: bytes, without_depth: Callable[[bytes], bytes]) -> int | None:
        return self._find_ref(without_depth(data)) if len(data) <= MAX_NESTED_BYTES else None

    # --- values inside frames, which are JSON in the log and in HTTP responses -------------------------

    def raw(self, json: bytes) -> msgspec.Raw:
        """Return a JSON value as a member of a frame."""
        if self is Encoding.JSON:
            return msgspec.Raw(json)
        return msgspec.Raw(_msgpack_encode(msgspec.json.decode(json)))

    def json_of(self, raw: msgspec.Raw) -> bytes:
        """Return a member of a frame as JSON, the inverse of `raw`."""
        return bytes(raw) if self is Encoding.JSON else _json_encode(_msgpack_any(raw))

    # --- messages that all followers of a log share ----------------------------------------------------

    def event_message(self, log: str, epoch: int, sequence: int, wire: bytes) -> bytes:
        """Return the `ev` of an event as a whole WebSocket message, the same for all sockets. `wire`: the event as JSON."""
        if self is Encoding.JSON:  # spliced: the event was encoded when it was stored
            payload = b'{"type":"ev","log":"%b","epoch":%d,"seq":%d,"event":%b}' % (log.encode(), epoch, sequence, wire)
            return text_frame(payload)
        members = {"type": "ev", "log": log, "epoch": epoch, "seq": sequence, "event": msgspec.json.decode(wire)}
        return binary_frame(_msgpack_encode(members))

    def ephemeral_message(self, log: str, kind: str, data: bytes) -> bytes:
        """Return the `eph` of a hint as a whole WebSocket message. `data`: JSON."""
        members = {"type": "eph", "log": log, "kind": kind, "data": self.raw(data)}
        found = self._format
        return found.framed(found.encode(members))

    def event_of(self, message: bytes) -> bytes:
        """Return the event in an `ev` as JSON, the inverse of `event_message`. Raises ValueError for other frames."""
        frame = self._format.of_server(frame_payload(message))
        if not hasattr(frame, "event"):
            raise ValueError("the frame is not an event")
        return self.json_of(frame.event)


SUBPROTOCOLS = {encoding.value: encoding for encoding in Encoding}
"""subprotocol -> encoding."""
