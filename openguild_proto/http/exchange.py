"""The interface behind which a request is read and answered: by pattern (fast_path.py), or line by line by h11 (lines.py)."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from openguild_proto.http.message import Headers
from openguild_proto.http.strictness import Framing, Rule


class Head(NamedTuple):
    """A whole head that has passed strictness.py, and the exchange that goes on with it."""

    method: str
    path: str
    query: str
    headers: Headers
    http_version: str
    framing: Framing
    exchange: Exchange


class HeadReader(Protocol):
    """One way of reading heads."""

    def read_head(self, buffer: bytearray) -> Head | Rule | None:
        """Take a head from the beginning of `buffer`; None: it is not whole, or not of the kind that this way reads."""


class Exchange(Protocol):
    """The rest of a request and its answer, one after the other on one connection."""

    def pass_body(self, data: bytes) -> bytes:
        """Pass on bytes of a body of known length; returns those that belong to the request."""

    def end_chunks(self) -> None:
        """The last chunk has come: trailers follow. The chunks themselves are counted by the reader."""

    def pass_trailer(self, line: bytes) -> None:
        """Pass on a line of the trailer section, with its CRLF; an empty one ends it."""

    def end_body(self) -> Rule | None:
        """The request has come whole; the rule that it breaks all the same."""

    def interim(self, status: int, reason: str, headers: list[tuple[bytes, bytes]]) -> bytes:
        """Bytes of an interim response (RFC 9110 15.2). Raises LocalProtocolError."""

    def response(self, status: int, reason: str, headers: list[tuple[bytes, bytes]], body: bytes) -> bytes:
        """Bytes of the final response. Raises LocalProtocolError for a value that no field may have."""

    def begin_next(self) -> bool:
        """Make ready for the next request; False: none may follow."""
