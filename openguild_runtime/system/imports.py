"""Imports of the program's own modules."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collector() -> Iterator[None]:
    """Suspend the garbage collector for imports: what they make stays, and to look at it again and again is a fifth of them."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
