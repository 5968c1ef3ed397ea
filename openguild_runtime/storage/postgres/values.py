"""Converts values of records and columns: milliseconds and timestamptz, UUID text and uuid."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from openguild_proto.records import PageCursor

Row: TypeAlias = asyncpg.Record
# A string, because asyncpg's connection is generic only in its stub.
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]"

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)


def moment(millis: int) -> datetime:
    """Return UTC milliseconds as a timestamptz value."""
    return EPOCH + millis * MILLISECOND  # three times as fast as timedelta(milliseconds=millis)


def moment_or_none(millis: int | None) -> datetime | None:
    """Return `moment` of the value, or None."""
    return moment(millis) if millis is not None else None


def bound(after: PageCursor | None) -> tuple[datetime | None, str | None]:
    """Return a page cursor as the two arguments of a query."""
    return (moment(after.at_ms), after.key) if after is not None else (None, None)


def to_millis(value: datetime) -> int:
    """Return a timestamptz value as UTC milliseconds."""
    return (value - EPOCH) // MILLISECOND


def to_millis_or_none(value: datetime | None) -> int | None:
    """Return `to_millis` of the value, or None."""
    return to_millis(value) if value is not None else None


def rows_changed(status: str) -> int:
    """Return the count of a command tag such as `DELETE 1`."""
    return int(status.rpartition(" ")[2])


def texts(values: Any) -> tuple[str, ...]:
    """Return an array of uuid or text as strings."""
    return tuple(str(value) for value in values)
