"""Reads requests from bytes: the head by the fast or the slow path, then the body, whose size is checked before it is stored."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from openguild_proto.http import strictness
from openguild_proto.http.exchange import Exchange, Head, HeadReader
from openguild_proto.http.fast_path import NO_BODY, PLAIN, PatternHeads
from openguild_proto.http.headers import HeaderPolicy, request_id_for
from openguild_proto.http.lines import LineExchange, take_line
from openguild_proto.http.message import Request
from openguild_proto.http.strictness import Rule
from openguild_proto.limits import Limits


class Part(StrEnum):
    """The part of a request that the next bytes belong to."""

    HEAD = "head"  # the request line and headers
    BODY = "body"  # a body of known length
    CHUNK_LINE = "chunk_line"  # a chunk's size and extensions (RFC 9112 7.1)
    CHUNK_DATA = "chunk_data"  # a chunk
    CHUNK_END = "chunk_end"  # CRLF after a chunk
    TRAILERS = "trailers"  # fields after the last chunk


class MissingPart(StrEnum):
    """The missing part of an incomplete request."""

    BEGINNING = "beginning"  # all of it
    HEAD = "head"  # the rest of a head
    BODY = "body"  # the rest of a body


_OF_NO_HEAD = (b"", b"\r")  # "\r" may begin an empty line, which is ignored (RFC 9112 2.2)


class RequestReader:
    """A `Decoder` of requests. `request` and `exchange` belong to the last one until `begin_next`."""

    __slots__ = (
        "_body", "_buffer", "_chunks", "_declared_bytes", "_limits", "_lines", "_max_body_of", "_part", "_part_bytes",
        "_patterns", "_peer", "_policy", "_trailer_bytes", "body_bytes", "client_address", "exchange", "expects_continue",
        "random_bytes", "request",
    )  # fmt: skip

    def __init__(
        self,
        limits: Limits,
        policy: HeaderPolicy,
        random_bytes: Callable[[int], bytes],
        peer: str,
        max_body_of: Callable[[str, str], int] | None = None,
    ) -> None:
        self._limits = limits
        self._policy = policy
        self.random_bytes = random_bytes
        self._peer = peer
        self._max_body_of = max_body_of
        self._buffer = bytearray()
        self._patterns: HeadReader = PatternHeads(limits)
        self._lines: LineExchange | None = None  # created for the first head that needs it
        self._body: list[bytes] = []  # whole chunks, or the whole body
        self.client_address = peer  # of the last head; the peer's until there is one
        self.body_bytes = 0  # received bytes of an incomplete body
        self._part_bytes = 0  # declared length of the body or the current chunk
        self._declared_bytes = self._chunks = self._trailer_bytes = 0
        self.expects_continue = False
        self.begin_next()

    def begin_next(self) -> None:
        """Start the next request, after the response to the last one."""
        self._part = Part.HEAD
        self.request: Request | None = None  # set when its head is complete
        self.exchange: Exchange = PLAIN

    def feed(self, data: bytes) -> None:
        """Buffer `data`."""
        self._buffer += data

    @property
    def unread(self) -> int:
        """The number of buffered bytes."""
        return len(self._buffer)

    @property
    def awaits(self) -> MissingPart:
        """The missing part of the request, after `next_item` returned None."""
        if self._part is not Part.HEAD:
            return MissingPart.BODY
        begun = self._lines is not None and self._lines.has_begun
        return MissingPart.HEAD if begun or self._buffer not in _OF_NO_HEAD else MissingPart.BEGINNING

    def next_item(self, now: float) -> Request | Rule | None:
        """Return the next complete request, a broken rule, or None if more bytes are needed. `now` is not used."""
        while True:
            outcome = _STEPS[self._part](self)
            if not isinstance(outcome, bool):
                return outcome

    # Each step returns True to continue, None if more bytes are needed, a Rule, or the complete Request.

    def _step_head(self) -> Request | Rule | bool | None:
        head: Head | Rule | None = None
        if self._lines is None or not self._lines.has_line:
            head = self._patterns.read_head(self._buffer)
        if head is None:
            if not self._buffer:
                return None
            if self._lines is None:
                self._lines = LineExchange(self._limits)
            self.exchange = self._lines
            head = self._lines.read_head(self._buffer)
        if head is None or isinstance(head, Rule):
            return head
        self.exchange = head.exchange
        policy, peer = self._policy, self._peer
        self.client_address = policy.client_address(peer, head.headers) if policy.trusted_proxies else peer
        self.request = Request(
            method=head.method,
            path=head.path,
            query=head.query,
            headers=head.headers,
            http_version=head.http_version,
            request_id=request_id_for(head.headers, self.random_bytes),
            client_address=self.client_address,
        )
        if head.framing is NO_BODY:
            self.expects_continue = False
            return self.request  # the most common case: no body to read
        return self._begin_body(self.request, head.framing)

    def _begin_body(self, request: Request, framing: strictness.Framing) -> Request | Rule | bool | None:
        self.expects_continue = framing.expects_continue
        if framing.chunked:
            self._declared_bytes = self._chunks = 0
            self._part = Part.CHUNK_LINE
            return True
        if not framing.length:
            return self._finish(request)
        if self._is_too_large(request, framing.length):
            return strictness.BODY_TOO_LARGE
        self._part_bytes = self._declared_bytes = framing.length
        self._part = Part.BODY
        return True

    def _is_too_large(self, request: Request, length: int) -> bool:
        limits = self._limits
        if length > limits.max_body_bytes:
            return True
        if self._max_body_of is None or length <= limits.unquestioned_body_bytes:
            return False
        return length > self._max_body_of(request.method, request.path)

    def _take_data(self) -> bytes | None:
        """Remove and return the body or the current chunk, or None if it is incomplete.

        Until then it stays in the buffer: as separate objects, each of its bytes could take forty bytes of memory.
        """
        missing = self._part_bytes - len(self._buffer)
        self.body_bytes = self._declared_bytes - max(missing, 0)
        if missing > 0:
            return None
        data = bytes(self._buffer[: self._part_bytes])
        del self._buffer[: self._part_bytes]
        return data

    def _step_body(self) -> Request | Rule | bool | None:
        data = self._take_data()
        if data is None:
            return None
        self._body.append(self.exchange.pass_body(data))
        return self._finish(self.request)

    def _step_chunk_line(self) -> Request | Rule | bool | None:
        line = take_line(self._buffer, self._limits.max_chunk_line_bytes, strictness.CHUNK_LINE_TOO_LONG)
        if line is None or isinstance(line, Rule):
            return line
        size, rule = strictness.check_chunk_line(line[:-2])
        if rule is not None:
            return rule
        self._declared_bytes += size
        if self.request is None or self._is_too_large(self.request, self._declared_bytes):
            return strictness.BODY_TOO_LARGE
        self._chunks += 1
        if self._chunks > self._limits.max_body_chunks:
            return strictness.CHUNK_COUNT
        if size:
            self._part_bytes = size
            self._part = Part.CHUNK_DATA
        else:
            self.exchange.end_chunks()
            self._trailer_bytes = 0
            self._part = Part.TRAILERS
        return True

    def _step_chunk_data(self) -> Request | Rule | bool | None:
        data = self._take_data()
        if data is None:
            return None
        self._body.append(data)
        self._part = Part.CHUNK_END
        return True

    def _step_chunk_end(self) -> Request | Rule | bool | None:
        if not self._buffer:
            return None
        if not b"\r\n".startswith(self._buffer[:2]):
            return strictness.CHUNK_END
        if len(self._buffer) < 2:
            return None
        del self._buffer[:2]
        self._part = Part.CHUNK_LINE
        return True

    def _step_trailers(self) -> Request | Rule | bool | None:
        line = take_line(self._buffer, self._limits.max_header_line_bytes, strictness.TRAILER_TOO_LARGE)
        if line is None or isinstance(line, Rule):
            return line
        self._trailer_bytes += len(line)
        if self._trailer_bytes > self._limits.max_header_line_bytes:
            return strictness.TRAILER_TOO_LARGE
        if line != b"\r\n":
            rule = strictness.check_header_line(line[:-2])
            if rule is not None:
                return rule
        self.exchange.pass_trailer(line)
        return True if line != b"\r\n" else self._finish(self.request)

    def _finish(self, request: Request | None) -> Request | Rule:
        rule = self.exchange.end_body()
        if rule is not None or request is None:
            return rule or strictness.LIBRARY
        self._part = Part.HEAD
        if self._body:
            body, self._body, self.body_bytes = b"".join(self._body), [], 0
            request = Request(
                method=request.method, path=request.path, query=request.query, headers=request.headers, body=body,
                http_version=request.http_version, request_id=request.request_id, client_address=request.client_address,
            )  # fmt: skip
            self.request = request
        return request

    def take_rest(self) -> bytes:
        """Remove and return all buffered bytes; drop an unfinished body."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        self._body, self.body_bytes = [], 0
        return rest


_STEPS: dict[Part, Callable[[RequestReader], Request | Rule | bool | None]] = {
    Part.HEAD: RequestReader._step_head,
    Part.BODY: RequestReader._step_body,
    Part.CHUNK_LINE: RequestReader._step_chunk_line,
    Part.CHUNK_DATA: RequestReader._step_chunk_data,
    Part.CHUNK_END: RequestReader._step_chunk_end,
    Part.TRAILERS: RequestReader._step_trailers,
}
