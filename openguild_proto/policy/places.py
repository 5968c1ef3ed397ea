"""Places for what is under way at the same time: some for each key, such as a server, and some in all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class Places:
    """`of_key`: how many places one key may take at a time; `in_all`: all keys together."""

    __slots__ = ("_in_all", "_of_key", "_taken")

    def __init__(self, of_key: int, in_all: int) -> None:
        self._of_key = of_key
        self._in_all = in_all
        self._taken: dict[str, int] = {}

    @contextmanager
    def place(self, key: str) -> Iterator[bool]:
        """Take a place within this context. False: there is none, and the context has none."""
        taken = self._taken.get(key, 0)
        if taken >= self._of_key or sum(self._taken.values()) >= self._in_all:
            yield False
            return
        self._taken[key] = taken + 1
        try:
            yield True
        finally:
            self._taken[key] -= 1
            if not self._taken[key]:
                del self._taken[key]
