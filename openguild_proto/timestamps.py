"""RFC 3339 timestamps from integers (PROTOCOL 1.2.2): UTC, `Z`, the shortest exact form of 0, 3 or 6 fractional digits."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST = datetime.max.replace(microsecond=999_000, tzinfo=UTC)
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")  # independent of the locale
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_TWO_DIGITS = tuple(f"{number:02d}" for number in range(60))
_MOMENT = re.compile(
    r"\d{4}-\d\d-\d\d([Tt ]\d\d:\d\d:\d\d(\.\d{1,6})?([Zz]|[+-]\d\d:\d\d))?", re.ASCII
)  # RFC 3339, or its date alone


def from_micros(micros: int) -> str:
    """Return the timestamp of `micros`, UTC microseconds since the epoch. Raises OverflowError outside the years 1 to 9999."""
    millis, rest = divmod(micros, 1000)
    return f"{_second(micros // 1_000_000)}.{micros % 1_000_000:06d}Z" if rest else from_millis(millis)


def from_millis(millis: int) -> str:
    """Return the timestamp of `millis`, UTC milliseconds since the epoch. Raises OverflowError outside the years 1 to 9999."""
    seconds, fraction = divmod(millis, 1000)
    return f"{_second(seconds)}.{fraction:03d}Z" if fraction else f"{_second(seconds)}Z"


def http_date(seconds: int) -> str:
    """Return the date in HTTP's format (RFC 9110 5.6.7), such as `Sun, 06 Nov 1994 08:49:37 GMT`.

    `seconds`: UTC seconds since the epoch. Raises OverflowError outside the years 1 to 9999.
    """
    moment = _EPOCH + timedelta(seconds=seconds)
    return f"{_DAYS[moment.weekday()]}, {moment:%d} {_MONTHS[moment.month - 1]} {moment.year:04d} {moment:%H:%M:%S} GMT"


def _second(seconds: int) -> str:
    days, second = divmod(seconds, 86_400)
    minute = second // 60
    return f"{_day(days)}T{_TWO_DIGITS[minute // 60]}:{_TWO_DIGITS[minute % 60]}:{_TWO_DIGITS[second % 60]}"


@lru_cache(maxsize=256)  # the events of a page fall on few days
def _day(days: int) -> str:
    return (_EPOCH + timedelta(days=days)).isoformat()[:10]


def to_millis(text: str) -> int | None:
    """Return an RFC 3339 timestamp or date (its midnight, UTC) as UTC milliseconds, rounded up; None if it is neither.

    Times before 1970 are clamped to 1970, and those after 9999 to its last millisecond: an offset or rounding may lead there.
    """
    if _MOMENT.fullmatch(text) is None:
        return None
    try:
        moment = datetime.fromisoformat(text.upper())
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
        return max(0, -((_EPOCH - min(moment, _LAST)) // timedelta(milliseconds=1)))
    except (ValueError, OverflowError):
        return None
