"""Requests out of bytes: bounded line by line before h11 sees a byte, whole requests out.

h11 is the authority on the wire; what it lets pass or checks too late is refused here first (strictness.py).
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

import h11

from openguild_proto.http import quick, strictness
from openguild_proto.http.headers import HeaderPolicy, request_id_for
from openguild_proto.http.message import Headers, Request
from openguild_proto.http.strictness import Rule
from openguild_proto.limits import Limits
from openguild_proto.uuids import new_uuid


class HttpPhase(Enum):
    """What the next bytes of the connection are."""

    HEAD = "head"  # reading the request line and headers
    BODY = "body"  # reading a body of known length
    CHUNK_LINE = "chunk_line"  # reading a chunk's size and extensions (RFC 9112 7.1)
    CHUNK_DATA = "chunk_data"  # reading a chunk
    CHUNK_END = "chunk_end"  # CRLF behind a chunk
    TRAILERS = "trailers"  # reading fields behind the last chunk
    ANSWERING = "answering"  # the request is with the caller; further bytes wait
    ENDED = "ended"  # nothing is interpreted any more


class RequestReader:
    """`next_request` is called until it gives None; a broken rule comes out as a `Rule`."""

    __slots__ = (
        "_buffer",
        "_bypasses_h11",
        "_chunk_left",
        "_chunked_bytes",
        "_chunks",
        "_empty_lines",
        "_h11",
        "_head_bytes",
        "_headers",
        "_limits",
        "_made_id",
        "_max_body_of",
        "_peer",
        "_policy",
        "_random_bytes",
        "_request",
        "body_parts",
        "continue_due",
        "http_version",
        "phase",
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
        self._max_body_of = max_body_of
        self._policy = policy
        self._random_bytes = random_bytes
        self._peer = peer
        self._h11 = h11.Connection(
            h11.SERVER, max_incomplete_event_size=limits.max_head_bytes + limits.max_header_line_bytes
        )
        self._buffer = bytearray()
        self._request: Request | None = None
        self.continue_due = False
        self._begin()

    def _begin(self) -> None:
        self.phase = HttpPhase.HEAD
        self._head_bytes = 0
        self._headers: list[tuple[str, str]] | None = None  # None: the request line has not come yet
        self._empty_lines = 0
        self._made_id = ""
        self._chunk_left = 0
        self._chunked_bytes = self._chunks = 0
        self._bypasses_h11 = False  # a common request, which h11 does not see (quick.py)
        self.body_parts: list[bytes] = []
        self.http_version = "1.1"

    def feed(self, data: bytes) -> Rule | None:
        """Keep `data`; `next_request` works on it. A Rule: more than is kept while a request is being answered."""
        if self.phase is HttpPhase.ENDED:
            return None
        if self.phase is HttpPhase.ANSWERING and len(self._buffer) + len(data) > self._limits.max_pipelined_bytes:
            return strictness.PIPELINE
        self._buffer += data
        return None

    @property
    def head_begun(self) -> bool:
        """Some of a request's head has come, and not all of it."""
        return self.phase is HttpPhase.HEAD and (self._head_bytes > 0 or len(self._buffer) > 0)

    @property
    def receiving_body(self) -> bool:
        """A request's head is read, and its body has not come whole."""
        return self.phase in _BODY_PHASES

    @property
    def is_reading(self) -> bool:
        """A request has begun and has not come whole."""
        return self.head_begun or self.receiving_body

    def next_request(self) -> Request | Rule | None:
        """The next whole request, the rule that was broken, or None: more bytes (or an answer) are needed first."""
        while True:
            step = _STEPS.get(self.phase)
            if step is None:
                return None
            outcome = step(self)
            if not isinstance(outcome, bool):
                return outcome

    # Each step returns True to go on, None for "more bytes", a Rule, or the finished Request.

    def _read_line(self, limit: int, too_long: Rule) -> bytes | Rule | None:
        end = self._buffer.find(b"\n", 0, limit + 2)
        if end < 0:
            return too_long if len(self._buffer) >= limit + 2 else None
        line = bytes(self._buffer[: end + 1])
        rule = strictness.check_line(line)
        if rule is not None:
            return rule
        del self._buffer[: end + 1]
        return line

    def _take_quick(self) -> Request | Rule | bool | None:
        """A whole head of the common kind, or None."""
        head = quick.read_head(self._buffer, self._limits)
        if head is None:
            return None
        del self._buffer[: head.size]
        self._bypasses_h11 = True
        self._request = Request(
            method=head.method,
            path=head.path,
            query=head.query,
            headers=head.headers,
            request_id=request_id_for(head.headers, self._random_bytes),
            client_address=self._policy.client_address(self._peer, head.headers),
        )
        self.continue_due = False
        if not head.length:
            return self._finish_request()
        if self._is_too_large(head.length):
            return strictness.BODY_TOO_LARGE
        self._chunk_left = head.length
        self.phase = HttpPhase.BODY
        return True

    def _step_head(self) -> Request | Rule | bool | None:
        limits = self._limits
        headers = self._headers
        if headers is None:
            taken = self._take_quick() if self._empty_lines == 0 else None
            if taken is not None:
                return taken
            limit, too_long = limits.max_target_bytes + 32, strictness.TARGET_TOO_LONG
        else:
            limit, too_long = limits.max_header_line_bytes, strictness.HEADER_TOO_LONG
        line = self._read_line(limit, too_long)
        if line is None or isinstance(line, Rule):
            return line
        if headers is None and line == b"\r\n":
            self._empty_lines += 1  # RFC 9112 2.2: one is to be ignored
            return True if self._empty_lines == 1 else strictness.LEADING_EMPTY_LINES
        self._head_bytes += len(line)
        if self._head_bytes > limits.max_head_bytes:
            return strictness.HEAD_TOO_LARGE
        if headers is None:
            rule = strictness.check_request_line(line[:-2], limits.max_target_bytes)
            self._headers = []
            self.http_version = line[-5:-2].decode("ascii", "replace")
        elif line == b"\r\n":
            return self._finish_head(line, tuple(headers))
        elif len(headers) == limits.max_header_count:
            rule = strictness.TOO_MANY_HEADERS
        else:
            rule = strictness.check_header_line(line[:-2])
            name, _, value = line.decode("latin-1").partition(":")
            headers.append((name.lower(), value.strip(" \t\r\n")))
        if rule is not None:
            return rule
        self._h11.receive_data(line)
        return True

    def _finish_head(self, line: bytes, headers: Headers) -> Request | Rule | bool | None:
        """The head is complete; our rules first, because h11 joins repeated fields and refuses with 400 only."""
        framing = strictness.check_head(self.http_version, headers, self._limits.max_body_bytes)
        if isinstance(framing, Rule):
            return framing
        self._h11.receive_data(line)
        try:
            event = self._h11.next_event()
        except h11.RemoteProtocolError as fault:
            return Rule(f"{strictness.LIBRARY.source}: {fault}")
        if not isinstance(event, h11.Request):
            return strictness.LIBRARY
        path, query = strictness.path_and_query(event.target.decode("ascii"))
        self._request = Request(
            method=event.method.decode("ascii"),
            path=path,
            query=query,
            headers=headers,
            http_version=self.http_version,
            request_id=request_id_for(headers, self._random_bytes),
            client_address=self._policy.client_address(self._peer, headers),
        )
        self._chunk_left = framing.length
        self.continue_due = framing.expects_continue
        if framing.chunked:
            self.phase = HttpPhase.CHUNK_LINE
        elif self._is_too_large(framing.length):
            return strictness.BODY_TOO_LARGE
        elif framing.length:
            self.phase = HttpPhase.BODY
        else:
            return self._finish_request()
        return True

    def _is_too_large(self, length: int) -> bool:
        """For the request whose head has come."""
        limits, request = self._limits, self._request
        if length <= limits.unquestioned_body_bytes or request is None:
            return False
        return length > limits.max_body_bytes or (
            self._max_body_of is not None and length > self._max_body_of(request.method, request.path)
        )

    def _step_body(self) -> Request | Rule | bool | None:
        self._pass_on()
        return None if self._chunk_left else self._finish_request()

    def _pass_on(self) -> None:
        """Keep body bytes that the framing has accounted for; those of a known length go through h11."""
        data = bytes(self._buffer[: self._chunk_left])
        if data:
            del self._buffer[: len(data)]
            self._chunk_left -= len(data)
            if self._bypasses_h11 or self.phase is HttpPhase.CHUNK_DATA:
                self.body_parts.append(data)
            else:
                self._h11.receive_data(data)
                self._collect()

    def _step_chunk_line(self) -> Request | Rule | bool | None:
        line = self._read_line(self._limits.max_chunk_line_bytes, strictness.CHUNK_LINE_TOO_LONG)
        if line is None or isinstance(line, Rule):
            return line
        size, rule = strictness.check_chunk_line(line[:-2])
        if rule is not None:
            return rule
        self._chunked_bytes += size
        if self._is_too_large(self._chunked_bytes):
            return strictness.BODY_TOO_LARGE
        self._chunks += 1
        if self._chunks > self._limits.max_body_chunks:
            return strictness.CHUNK_COUNT
        if not size:
            self._h11.receive_data(
                b"0\r\n"
            )  # h11 sees only the end of the body: each chunk through it costs ten times as much
        self._chunk_left = size
        self.phase = HttpPhase.CHUNK_DATA if size else HttpPhase.TRAILERS
        self._head_bytes = 0  # from here it counts the trailer section
        return True

    def _step_chunk_data(self) -> Request | Rule | bool | None:
        self._pass_on()
        if self._chunk_left:
            return None
        self.phase = HttpPhase.CHUNK_END
        return True

    def _step_chunk_end(self) -> Request | Rule | bool | None:
        if not self._buffer:
            return None
        if not b"\r\n".startswith(self._buffer[:2]):
            return strictness.CHUNK_END
        if len(self._buffer) < 2:
            return None
        del self._buffer[:2]
        self.phase = HttpPhase.CHUNK_LINE
        return True

    def _step_trailers(self) -> Request | Rule | bool | None:
        line = self._read_line(self._limits.max_header_line_bytes, strictness.TRAILER_TOO_LARGE)
        if line is None or isinstance(line, Rule):
            return line
        self._head_bytes += len(line)
        if self._head_bytes > self._limits.max_header_line_bytes:
            return strictness.TRAILER_TOO_LARGE
        if line != b"\r\n":
            rule = strictness.check_header_line(line[:-2])
            if rule is not None:
                return rule
            self._h11.receive_data(line)
            return True
        self._h11.receive_data(line)
        return self._finish_request()

    def _collect(self) -> None:
        while isinstance(event := self._h11.next_event(), h11.Data):
            self.body_parts.append(bytes(event.data))

    def _finish_request(self) -> Request | Rule:
        try:
            if not self._bypasses_h11:
                self._collect()
        except h11.RemoteProtocolError as fault:
            return Rule(f"{strictness.LIBRARY.source}: {fault}")
        if self._request is None or not (self._bypasses_h11 or self._h11.their_state not in _UNFINISHED):
            return strictness.LIBRARY
        self.phase = HttpPhase.ANSWERING
        body, self.body_parts = b"".join(self.body_parts), []
        if body:
            request = self._request
            self._request = Request(
                method=request.method, path=request.path, query=request.query, headers=request.headers, body=body,
                http_version=request.http_version, request_id=request.request_id, client_address=request.client_address,
            )  # fmt: skip
        return self._request

    @property
    def request_id(self) -> str:
        """The id of the request being answered or read; for a head that could not be read, one made here."""
        if self._request is not None:
            return self._request.request_id
        self._made_id = self._made_id or new_uuid(self._random_bytes)
        return self._made_id

    def end(self) -> None:
        """Interpret nothing any more and drop what was kept."""
        self.phase = HttpPhase.ENDED
        self._buffer.clear()

    def take_rest(self) -> bytes:
        """Bytes that arrived behind the handshake: they belong to the WebSocket."""
        rest = bytes(self._buffer)
        self.end()
        return rest


_UNFINISHED = {h11.IDLE, h11.SEND_BODY, h11.ERROR}  # of the peer: h11 has not got the whole request

_BODY_PHASES = {HttpPhase.BODY, HttpPhase.CHUNK_LINE, HttpPhase.CHUNK_DATA, HttpPhase.CHUNK_END, HttpPhase.TRAILERS}

_STEPS: dict[HttpPhase, Callable[[RequestReader], Request | Rule | bool | None]] = {
    HttpPhase.HEAD: RequestReader._step_head,
    HttpPhase.BODY: RequestReader._step_body,
    HttpPhase.CHUNK_LINE: RequestReader._step_chunk_line,
    HttpPhase.CHUNK_DATA: RequestReader._step_chunk_data,
    HttpPhase.CHUNK_END: RequestReader._step_chunk_end,
    HttpPhase.TRAILERS: RequestReader._step_trailers,
}
