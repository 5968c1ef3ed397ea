"""Reads any request line by line: checks each line (strictness.py), then passes it to h11.

h11 is the authority on the wire format. Input that it accepts or checks too late is refused first.
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
    """Remove and return the first line of `buffer` with its CRLF, a broken rule, or None: the line is incomplete.

    `limit`: bytes without the CRLF; a longer line returns `too_long`.
    """
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
    """Reads heads line by line into h11, and is the exchange of the request."""

    __slots__ = ("_empty_lines", "_h11", "_head_bytes", "_headers", "_http_version", "_limits")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._h11 = h11.Connection(
            h11.SERVER, max_incomplete_event_size=limits.max_head_bytes + limits.max_header_line_bytes
        )
        self._begin()

    def _begin(self) -> None:
        self._head_bytes = 0
        self._headers: list[tuple[str, str]] | None = None  # None: before the request line
        self._empty_lines = 0
        self._http_version = "1.1"

    @property
    def has_line(self) -> bool:
        """Whether a line was consumed, so that the fast path can no longer read this head."""
        return self._head_bytes > 0 or self._empty_lines > 0

    @property
    def has_begun(self) -> bool:
        """Whether more than an empty line was consumed."""
        return self._head_bytes > 0

    # --- reading -----------------------------------------------------------------------------------

    def read_head(self, buffer: bytearray) -> Head | Rule | None:
        """Consume lines until the head is complete, a rule is broken, or more bytes are needed."""
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
                self._empty_lines += 1  # RFC 9112 2.2: one is ignored
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
        """Check the complete head. Our rules come first, because h11 joins repeated fields and only answers 400."""
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
        """Pass the bytes through h11, which also counts the length."""
        self._h11.receive_data(data)
        return self._collect()

    def end_chunks(self) -> None:
        """Pass only the end of a chunked body to h11, because passing each chunk costs ten times as much."""
        self._h11.receive_data(b"0\r\n")

    def pass_trailer(self, line: bytes) -> None:
        """Pass the line to h11, which checks the fields and drops them."""
        self._h11.receive_data(line)

    def _collect(self) -> bytes:
        parts = []
        while isinstance(event := self._h11.next_event(), h11.Data):
            parts.append(bytes(event.data))
        return b"".join(parts)

    def end_body(self) -> Rule | None:
        """Return the rule that h11 found broken. The request must also be complete for h11."""
        try:
            self._collect()
        except h11.RemoteProtocolError as fault:
            return Rule(f"{strictness.LIBRARY.source}: {fault}")
        return strictness.LIBRARY if self._h11.their_state in _UNFINISHED else None

    # --- responses ---------------------------------------------------------------------------------

    def interim(self, status: int, reason: str, headers: list[tuple[bytes, bytes]]) -> bytes:
        """Return the bytes of a 1xx. Raises LocalProtocolError if h11 refuses it."""
        return self._send(h11.InformationalResponse, status_code=status, headers=headers, reason=reason)

    def response(self, status: int, reason: str, headers: list[tuple[bytes, bytes]], body: bytes) -> bytes:
        """Return the bytes of the final response. Raises LocalProtocolError if h11 refuses it."""
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
        """Prepare for the next request. False after HTTP/1.0 and after Connection: close of either side (RFC 9112 9.3)."""
        if self._h11.our_state is not h11.DONE or self._h11.their_state is not h11.DONE:
            return False
        self._h11.start_next_cycle()
        self._begin()
        return True


_UNFINISHED = {h11.IDLE, h11.SEND_BODY, h11.ERROR}  # states of the peer in which h11 considers the request incomplete
