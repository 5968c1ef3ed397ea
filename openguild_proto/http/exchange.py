"""The interface of the two request readers: by patterns (fast_path.py), and line by line with h11 (lines.py)."""

from __future__ import annotations

from typing import Protocol

import msgspec

from openguild_proto.http.message import Headers
from openguild_proto.http.strictness import Framing, Rule


class Head(msgspec.Struct, frozen=True):
    """A complete head that has passed strictness.py, and the exchange for the rest of the request."""

    method: str
    path: str
    query: str
    headers: Headers
    http_version: str
    framing: Framing
    exchange: Exchange


class HeadReader(Protocol):
    """Reads heads."""

    def read_head(self, buffer: bytearray) -> Head | Rule | None:
        """Remove and return the head at the start of `buffer`; None: it is incomplete, or not supported by this reader."""


class Exchange(Protocol):
    """Reads the rest of a request and encodes its response."""

    def pass_body(self, data: bytes) -> bytes:
        """Process bytes of a body of known length, and return the bytes for the request."""

    def end_chunks(self) -> None:
        """Process the last chunk; trailers follow. The reader counts the chunks."""

    def pass_trailer(self, line: bytes) -> None:
        """Process a line of the trailer section with its CRLF. An empty line ends the section."""

    def end_body(self) -> Rule | None:
        """Process the end of the request. Return the rule that it broke, or None."""

    def interim(self, status: int, reason: str, headers: list[tuple[bytes, bytes]]) -> bytes:
        """Return the bytes of an interim response (RFC 9110 15.2). Raises LocalProtocolError."""

    def response(self, status: int, reason: str, headers: list[tuple[bytes, bytes]], body: bytes) -> bytes:
        """Return the bytes of the final response. Raises LocalProtocolError for an invalid field value."""

    def begin_next(self) -> bool:
        """Prepare for the next request. Return False if none may follow."""
