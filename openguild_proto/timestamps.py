"""RFC 3339 timestamps from integers (PROTOCOL 1.2.2): UTC, `Z`, shortest exact of 0, 3, 6 fractional digits."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MOMENT = re.compile(
    r"\d{4}-\d\d-\d\d([Tt ]\d\d:\d\d:\d\d(\.\d{1,6})?([Zz]|[+-]\d\d:\d\d))?", re.ASCII
)  # RFC 3339, or its date alone


def from_micros(micros: int) -> str:
    """`micros`: UTC microseconds since the epoch. Raises OverflowError outside the years 1 to 9999."""
    seconds, fraction = divmod(micros, 1_000_000)
    base = _second(seconds)
    if fraction == 0:
        return f"{base}Z"
    if fraction % 1000 == 0:
        return f"{base}.{fraction // 1000:03d}Z"
    return f"{base}.{fraction:06d}Z"


@lru_cache(maxsize=64)  # what happens now falls into few seconds
def _second(seconds: int) -> str:
    return (_EPOCH + timedelta(seconds=seconds)).isoformat()[:19]


def from_millis(millis: int) -> str:
    """`millis`: UTC milliseconds since the epoch."""
    return from_micros(millis * 1000)


def to_millis(text: str) -> int | None:
    """Return UTC milliseconds, rounded up, of an RFC 3339 timestamp or of the beginning of a date; None: it is neither.

    Times before 1970 count as 1970.
    """
    if _MOMENT.fullmatch(text) is None:
        return None
    try:
        moment = datetime.fromisoformat(text.upper())
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
        return max(0, -((_EPOCH - moment) // timedelta(milliseconds=1)))
    except (ValueError, OverflowError):
        return None
