"""Share one object between equal strings that many connections keep."""

from __future__ import annotations

from functools import lru_cache

MAX_SHARED = 65_536  # ours: beyond it the least recently used text is evicted


@lru_cache(maxsize=MAX_SHARED)
def shared(text: str) -> str:
    """Return an equal string, the same object each time. `sys.intern` is not used: some Python releases never free its strings."""
    return text
