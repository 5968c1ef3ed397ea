"""One line on stderr that says what runs and how much is left."""

from __future__ import annotations

import shutil
import sys
import time

MARKS = 30


class Progress:
    """`steps`: how many there will be. Without a terminal it writes nothing but the end."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.done = 0
        self.started = time.monotonic()
        self._in_place = sys.stderr.isatty()

    def step(self, what: str) -> None:
        """Begin the next step."""
        if self._in_place:
            filled = min(MARKS, MARKS * self.done // self.steps)
            bar = "#" * filled + "." * (MARKS - filled)
            self._write(f"{self.done}/{self.steps} {time.monotonic() - self.started:4.0f} s  {what}  [{bar}]")
        self.done += 1

    def end(self) -> None:
        """Finish the line."""
        self._write(f"{self.done} steps, {time.monotonic() - self.started:.0f} s")
        sys.stderr.write("\n")

    def _write(self, text: str) -> None:
        """In a terminal in place of the line before, as wide as the terminal: a longer one would wrap."""
        width = shutil.get_terminal_size().columns - 1
        sys.stderr.write(f"\r{text[:width]:<{width}}" if self._in_place else text)
        sys.stderr.flush()
