"""A header field as a line (RFC 9110 5.5)."""

from __future__ import annotations

import re
from functools import lru_cache

from openguild_proto.errors import LocalProtocolError
from openguild_proto.http import strictness

_OF_CONNECTION = frozenset({"connection", "content-length", "keep-alive", "transfer-encoding", "x-request-id"})
_VALUE = re.compile(rb"(?:[!-~\x80-\xff]+(?:[\t ]+[!-~\x80-\xff]+)*)?")


@lru_cache(maxsize=256)
def field_name(name: str) -> bytes:
    """Return the name of a response header in lower case.

    Raises LocalProtocolError for an invalid name, and for the framing and the request id, which the connection sets (RFC 9112
    6).
    """
    lower = name.lower()
    if not name.isascii() or strictness.WHOLE_TOKEN.fullmatch(name.encode()) is None:
        raise LocalProtocolError(f"{name!r} is not the name of a header")
    if lower in _OF_CONNECTION:
        raise LocalProtocolError(
            f"the header {lower} is the connection's own; close=True of a Response sends connection: close"
        )
    return lower.encode()


def field_line(name: bytes, value: bytes) -> bytes:
    """Return the line of a header. Raises LocalProtocolError for an invalid value."""
    if _VALUE.fullmatch(value) is None:
        raise LocalProtocolError(
            f"the value of {name.decode()} holds control characters, or begins or ends with spaces"
        )
    return b"%b: %b\r\n" % (name, value)


frequent_field_line = lru_cache(maxsize=256)(field_line)
"""`field_line`, cached for values that many responses share."""
