"""One page out of a sorted list."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")
Place = tuple[int, str]


def page_after(
    items: Sequence[T], *, key: Callable[[T], Place], paged: bool, anchor: T | None, limit: int | None
) -> tuple[T, ...]:
    """The first `limit` items (None: all) after `anchor`. `paged` without an anchor: the place is gone, nothing."""
    if paged:
        if anchor is None:
            return ()
        place = key(anchor)
        items = [item for item in items if key(item) > place]
    return tuple(items if limit is None else items[: max(0, limit)])
