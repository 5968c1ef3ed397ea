"""A header field as a line (RFC 9110 5.5)."""

from __future__ import annotations

import re
from functools import lru_cache

from openguild_proto.errors import LocalProtocolError

_VALUE = re.compile(rb"(?:[!-~\x80-\xff]+(?:[\t ]+[!-~\x80-\xff]+)*)?")


def field_line(name: bytes, value: bytes) -> bytes:
    """Return the line. Raises LocalProtocolError for an invalid value."""
    if _VALUE.fullmatch(value) is None:
        raise LocalProtocolError(f"the value of {name.decode()} holds control characters or ends with spaces")
    return b"%b: %b\r\n" % (name, value)


frequent_field_line = lru_cache(maxsize=256)(field_line)
"""`field_line` for values that many responses share."""
