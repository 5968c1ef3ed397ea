"""Any request, read line by line: bounded and checked before h11 sees a byte, then h11 has the last word.

h11 is the authority on the wire; what it lets pass or checks too late is refused here first (strictness.py).
"""

from __future__ import annotations

from typing import Any

import h11

from openguild_proto.errors import LocalProtocolError
from openguild_proto.http import strictness
from openguild_proto.http.exchange import Head
from openguild_proto.http.message import Headers
from openguild_proto.http.strictness import Rule
from openguild_proto.limits import Limits


def take_line(buffer: bytearray, limit: int, too_long: Rule) -> bytes | Rule | None:
    """The first line of `buffer` with its CRLF, at most `limit` bytes without it; `too_long` or another broken rule."""
    end = buffer.find(b"\n", 0, limit + 2)
    if end < 0:
        return too_long if len(buffer) >= limit + 2 else None
    line = bytes(buffer[: end + 1])
    rule = strictness.check_line(line)
    if rule is not None:
        return rule
    del buffer[: end + 1]
    return line


class LineExchange:
    """Reads heads line by line into h11, and is the exchange that follows."""

    __slots__ = ("_empty_lines", "_h11", "_head_bytes", "_headers", "_http_version", "_limits")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._h11 = h11.Connection(
            h11.SERVER, max_incomplete_event_size=limits.max_head_bytes + limits.max_header_line_bytes
        )
        self._begin()

    def _begin(self) -> None:
        self._head_bytes = 0
        self._headers: list[tuple[str, str]] | None = None  # None: the request line has not come yet
        self._empty_lines = 0
        self._http_version = "1.1"

    @property
    def has_line(self) -> bool:
        """Some of a head has been taken in: it is no matter for another way any more."""
        return self._head_bytes > 0 or self._empty_lines > 0

    @property
    def has_begun(self) -> bool:
        """More than an empty line has been taken in."""
        return self._head_bytes > 0

    # --- reading -----------------------------------------------------------------------------------

    def read_head(self, buffer: bytearray) -> Head | Rule | None:
        """Take lines in until the head is whole, a rule is broken, or more bytes are needed."""
        limits = self._limits
        while True:
            headers = self._headers
            if headers is None:
                line = take_line(buffer, limits.max_target_bytes + 32, strictness.TARGET_TOO_LONG)
            else:
                line = take_line(buffer, limits.max_header_line_bytes, strictness.HEADER_TOO_LONG)
            if line is None or isinstance(line, Rule):
                return line
            if headers is None and line == b"\r\n":
                self._empty_lines += 1  # RFC 9112 2.2: one is to be ignored
                if self._empty_lines > 1:
                    return strictness.LEADING_EMPTY_LINES
                continue
            self._head_bytes += len(line)
            if self._head_bytes > limits.max_head_bytes:
                return strictness.HEAD_TOO_LARGE
            if headers is not None and line == b"\r\n":
                return self._finish_head(tuple(headers))
            rule = self._take_request_line(line) if headers is None else self._take_header(line, headers)
            if rule is not None:
                return rule
            self._h11.receive_data(line)

    def _take_request_line(self, line: bytes) -> Rule | None:
        self._headers = []
        self._http_version = line[-5:-2].decode("ascii", "replace")
        return strictness.check_request_line(line[:-2], self._limits.max_target_bytes)

    def _take_header(self, line: bytes, headers: list[tuple[str, str]]) -> Rule | None:
        if len(headers) == self._limits.max_header_count:
            return strictness.TOO_MANY_HEADERS
        name, _, value = line.decode("latin-1").partition(":")
        headers.append((name.lower(), value.strip(" \t\r\n")))
        return strictness.check_header_line(line[:-2])

    def _finish_head(self, headers: Headers) -> Head | Rule:
        """The head is complete; our rules first, because h11 joins repeated fields and refuses with 400 only."""
        framing = strictness.check_head(self._http_version, headers, self._limits.max_body_bytes)
        if isinstance(framing, Rule):
            return framing
        self._h11.receive_data(b"\r\n")
        try:
            event = self._h11.next_event()
        except h11.RemoteProtocolError as fault:
            return Rule(f"{strictness.LIBRARY.source}: {fault}")
        if not isinstance(event, h11.Request):
            return strictness.LIBRARY
        path, query = strictness.path_and_query(event.target.decode("ascii"))
        return Head(event.method.decode("ascii"), path, query, headers, self._http_version, framing, self)

    def pass_body(self, data: bytes) -> bytes:
        """Through h11, which counts the length too."""
        self._h11.receive_data(data)
        return self._collect()

    def end_chunks(self) -> None:
        """h11 sees only the end of a chunked body: each chunk through it costs ten times as much."""
        self._h11.receive_data(b"0\r\n")

    def pass_trailer(self, line: bytes) -> None:
        """h11 takes the fields, and drops them."""
        self._h11.receive_data(line)

    def _collect(self) -> bytes:
        parts = []
        while isinstance(event := self._h11.next_event(), h11.Data):
            parts.append(bytes(event.data))
        return b"".join(parts)

    def end_body(self) -> Rule | None:
        """h11 must have got the whole request too."""
        try:
            self._collect()
        except h11.RemoteProtocolError as fault:
            return Rule(f"{strictness.LIBRARY.source}: {fault}")
        return strictness.LIBRARY if self._h11.their_state in _UNFINISHED else None

    # --- answering ---------------------------------------------------------------------------------

    def interim(self, status: int, reason: str, headers: list[tuple[bytes, bytes]]) -> bytes:
        """Bytes of a 1xx. Raises LocalProtocolError for what h11 does not send."""
        return self._send(h11.InformationalResponse, status_code=status, headers=headers, reason=reason)

    def response(self, status: int, reason: str, headers: list[tuple[bytes, bytes]], body: bytes) -> bytes:
        """Bytes of the final response. Raises LocalProtocolError for what h11 does not send."""
        data = self._send(h11.Response, status_code=status, headers=headers, reason=reason)
        if body:
            data += self._send(h11.Data, data=body)
        if self._h11.our_state is h11.SEND_BODY:
            data += self._send(h11.EndOfMessage)
        return data

    def _send(self, event: type[h11.Event], **fields: Any) -> bytes:
        try:
            return self._h11.send(event(**fields)) or b""
        except h11.LocalProtocolError as misuse:
            raise LocalProtocolError(str(misuse)) from misuse

    def begin_next(self) -> bool:
        """False after HTTP/1.0 and Connection: close, whichever side said it (RFC 9112 9.3)."""
        if self._h11.our_state is not h11.DONE or self._h11.their_state is not h11.DONE:
            return False
        self._h11.start_next_cycle()
        self._begin()
        return True


_UNFINISHED = {h11.IDLE, h11.SEND_BODY, h11.ERROR}  # of the peer: h11 has not got the whole request
