"""One object for equal texts that very many connections keep."""

from __future__ import annotations

from functools import lru_cache

MAX_SHARED = 65_536  # ours: beyond it the text that was asked for longest ago is forgotten


@lru_cache(maxsize=MAX_SHARED)
def shared(text: str) -> str:
    """Return the text, as the same object each time. `sys.intern` keeps what it has seen for good on some releases of Python."""
    return text
