"""Imports of the program's own modules."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

UNUSED = ("aiohttp", "rich")
"""What nats-py and structlog import where it is installed. Nothing of it is used here, and it would be a quarter of all imports."""


@contextmanager
def lean_imports() -> Iterator[None]:
    """Import without UNUSED, and without the garbage collector: what imports make stays, and to look at it again and again takes a
    fifth of their time.
    """
    hidden = [name for name in UNUSED if name not in sys.modules]
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment]  # as if it were not installed
    gc.disable()
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
        gc.freeze()
        gc.enable()
