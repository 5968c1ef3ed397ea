"""The common request, read at once: a complete HTTP/1.1 head with a plain or absent body, nothing special in it.

One pattern holds the same grammar as strictness.py checks line by line, so h11 would only parse it a second time. All
else (a cut head, HTTP/1.0, chunks, Expect, Upgrade, Connection: close, anything malformed) is not recognised here and
takes the long way, where every rule has its own answer. A test feeds both ways the same bytes and wants the same result.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from openguild_proto.errors import LocalProtocolError
from openguild_proto.http.message import Headers
from openguild_proto.http.strictness import HOST, TOKEN
from openguild_proto.limits import MAX_METHOD_BYTES, Limits

_HEAD = re.compile(rb"(" + TOKEN + rb") (/[!-\"$-~]*) HTTP/1\.1\r\n((?:" + TOKEN + rb":[\t -~\x80-\xff]*\r\n)+)\r\n")
_LONG_WAY = frozenset({"transfer-encoding", "expect", "upgrade", "te", "trailer"})
_VALUE = re.compile(rb"(?:[!-~\x80-\xff]+(?:[\t ]+[!-~\x80-\xff]+)*)?")  # RFC 9110 5.5


class QuickHead(NamedTuple):
    """`size`: bytes of the head, with its empty line. `length`: bytes of the body."""

    method: str
    path: str
    query: str
    headers: Headers
    length: int
    size: int


def read_head(buffer: bytearray, limits: Limits) -> QuickHead | None:
    """The head at the beginning of `buffer`, or None: it takes the long way."""
    end = buffer.find(b"\r\n\r\n", 0, min(limits.max_header_line_bytes, limits.max_head_bytes)) + 4
    if end < 4 or (matched := _HEAD.fullmatch(buffer, 0, end)) is None:
        return None
    method, target, block = matched.groups()
    lines = block.decode("latin-1").split("\r\n")
    if method == b"CONNECT" or len(method) > MAX_METHOD_BYTES or len(target) > limits.max_target_bytes:
        return None
    if len(lines) - 1 > limits.max_header_count:
        return None
    headers: list[tuple[str, str]] = []
    hosts, length = 0, -1
    for line in lines[:-1]:
        name, _, value = line.partition(":")
        name, value = name.lower(), value.strip(" \t")
        headers.append((name, value))
        if name == "host":
            hosts += 1
            if HOST.fullmatch(value) is None:
                return None
        elif name == "content-length":
            if length >= 0 or not (value.isascii() and value.isdigit() and len(value) <= 18):
                return None
            length = int(value)
        elif name in _LONG_WAY or (name == "connection" and value.lower() != "keep-alive"):
            return None
    if hosts != 1 or length > limits.max_body_bytes:
        return None
    path, _, query = target.decode("ascii").partition("?")
    return QuickHead(method.decode("ascii"), path, query, tuple(headers), max(length, 0), end)


def response_bytes(status: int, reason: str, headers: list[tuple[bytes, bytes]], body: bytes) -> bytes:
    """A response as h11 would write it. Raises LocalProtocolError for a value that no field may have."""
    parts = [b"HTTP/1.1 %d %b\r\n" % (status, reason.encode("ascii"))]
    for name, value in headers:
        if _VALUE.fullmatch(value) is None:
            raise LocalProtocolError(f"the value of {name.decode()} holds control characters or ends with spaces")
        parts.append(b"%b: %b\r\n" % (name, value))
    parts.append(b"\r\n")
    parts.append(body)
    return b"".join(parts)
