"""The fast path for common requests: a complete HTTP/1.1 head with a body of known length or none, or a WebSocket handshake.

Two patterns have the grammar that strictness.py checks line by line, so a second parse by h11 is not needed. All other
requests (an incomplete head, HTTP/1.0, chunks, Expect, other upgrades, Connection: close, anything malformed) take the slow
path (lines.py), which has a response for each rule. A test feeds the same bytes to both paths and compares the results.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from openguild_proto.errors import LocalProtocolError
from openguild_proto.http.exchange import Head
from openguild_proto.http.fields import frequent_field_line
from openguild_proto.http.message import Headers
from openguild_proto.http.strictness import HOST, TOKEN, Framing, Rule
from openguild_proto.limits import MAX_METHOD_BYTES, Limits

_REQUEST_LINE = re.compile(rb"(" + TOKEN + rb") (/[!-\"$-~]*) HTTP/1\.1\r\n")
_FIELD_LINES = re.compile(rb"((?:" + TOKEN + rb":[\t -~\x80-\xff]*\r\n)+)\r\n")
# the last four take the slow path
_CHECKED = frozenset(
    {"host", "content-length", "connection", "upgrade", "transfer-encoding", "expect", "te", "trailer"}
)
_UPGRADES = frozenset({"upgrade", "keep-alive, upgrade"})  # values of Connection that clients and browsers send
MAX_REMEMBERED_BYTES, MAX_REMEMBERED_FIELDS = 2_048, 32  # per connection, which may be idle: at most 11 KiB
NO_BODY = Framing(0, chunked=False, expects_continue=False)


class _Fields(NamedTuple):
    """The header fields of a head: their lines with the final empty line, and the parsed fields."""

    lines: bytes
    headers: Headers
    framing: Framing
    upgrades: bool


_NO_FIELDS = _Fields(b"", (), NO_BODY, upgrades=False)


class PatternHeads:
    """Reads common heads and leaves all others in the buffer.

    Caches the last header fields, because a client repeats them in most requests with another target.
    """

    __slots__ = ("_last", "_limits", "_max_bytes")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._max_bytes = min(limits.max_header_line_bytes, limits.max_head_bytes)
        self._last = _NO_FIELDS

    def read_head(self, buffer: bytearray) -> Head | None:
        """Remove and return the head at the start of `buffer`; None: use the slow path."""
        start = buffer.find(b"\r\n", 0, self._max_bytes) + 2
        if start < 2 or (matched := _REQUEST_LINE.fullmatch(buffer, 0, start)) is None:
            return None
        method, target = matched.groups()
        if method == b"CONNECT" or len(method) > MAX_METHOD_BYTES or len(target) > self._limits.max_target_bytes:
            return None
        fields = self._last
        if not fields.lines or not buffer.startswith(fields.lines, start):
            found = self._read_fields(buffer, start)
            if found is None:
                return None
            fields = found
            is_small = len(fields.lines) <= MAX_REMEMBERED_BYTES and len(fields.headers) <= MAX_REMEMBERED_FIELDS
            self._last = fields if is_small else _NO_FIELDS
        lines, headers, framing, upgrades = fields
        end = start + len(lines)
        if end > self._max_bytes or (upgrades and method != b"GET"):
            return None
        path, _, query = target.decode("ascii").partition("?")
        del matched, buffer[:end]
        return Head(method.decode("ascii"), path, query, headers, "1.1", framing, HANDSHAKE if upgrades else PLAIN)

    def _read_fields(self, buffer: bytearray, start: int) -> _Fields | None:
        end = buffer.find(b"\r\n\r\n", start, self._max_bytes) + 4
        if end < 4 or (matched := _FIELD_LINES.fullmatch(buffer, start, end)) is None:
            return None
        lines = matched[1].decode("latin-1").split("\r\n")
        if len(lines) - 1 > self._limits.max_header_count:
            return None
        headers: list[tuple[str, str]] = []
        hosts, length = 0, -1
        upgrades, can_upgrade = 0, False
        for line in lines[:-1]:
            name, _, value = line.partition(":")
            name, value = name.lower(), value.strip(" \t")
            headers.append((name, value))
            if name not in _CHECKED:
                continue
            if name == "host":
                hosts += 1
                if HOST.fullmatch(value) is None:
                    return None
            elif name == "content-length":
                if length >= 0 or not (value.isascii() and value.isdigit() and len(value) <= 18):
                    return None
                length = int(value)
            elif name == "connection":
                option = value.lower()
                if option in _UPGRADES:
                    can_upgrade = True
                elif option != "keep-alive":
                    return None
            elif name == "upgrade":
                upgrades += 1
                if value.lower() != "websocket":
                    return None
            else:
                return None
        if hosts != 1 or length > self._limits.max_body_bytes:
            return None
        if (upgrades or can_upgrade) and (upgrades != 1 or not can_upgrade or length >= 0):
            return None
        framing = Framing(length, chunked=False, expects_continue=False) if length > 0 else NO_BODY
        return _Fields(matched[0], tuple(headers), framing, can_upgrade)


class PlainExchange:
    """The exchange of the fast path. It has no state, so all connections share two: `PLAIN` and `HANDSHAKE`."""

    __slots__ = ()

    def pass_body(self, data: bytes) -> bytes:
        """Return the bytes unchanged."""
        return data

    def end_chunks(self) -> None:
        """Unreachable: chunked bodies take the slow path."""

    def pass_trailer(self, line: bytes) -> None:
        """Unreachable: chunked bodies take the slow path."""

    def end_body(self) -> Rule | None:
        """Return None: the reader has counted the length."""
        return None

    def interim(self, status: int, reason: str, headers: list[tuple[bytes, bytes]]) -> bytes:
        """Raise LocalProtocolError: requests that expect 100 take the slow path, and `HttpConnection.switch` encodes the 101."""
        raise LocalProtocolError("the request asks for no interim response")

    def response(self, status: int, reason: str, headers: list[tuple[bytes, bytes]], body: bytes) -> bytes:
        """Return a response as h11 would encode it. Raises LocalProtocolError for an invalid field value."""
        parts = [b"HTTP/1.1 %d %b\r\n" % (status, reason.encode("ascii"))]
        parts.extend([frequent_field_line(name, value) for name, value in headers])
        parts.append(b"\r\n")
        parts.append(body)
        return b"".join(parts)

    def begin_next(self) -> bool:
        """Return True: HTTP/1.1 without Connection: close persists (RFC 9112 9.3)."""
        return True


PLAIN = PlainExchange()
HANDSHAKE = PlainExchange()  # of a request that may be a WebSocket handshake, which is checked later
