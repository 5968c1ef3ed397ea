"""Selects one page of a sorted list."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from openguild_proto.records import PageCursor

T = TypeVar("T")


def page_after(
    items: Sequence[T], *, key: Callable[[T], tuple[int, str]], after: PageCursor | None, limit: int | None
) -> tuple[T, ...]:
    """Return the first `limit` items (None: all) after the cursor `after`."""
    if after is not None:
        items = [item for item in items if key(item) > (after.at_ms, after.key)]
    return tuple(items if limit is None else items[: max(0, limit)])
