"""A progress line on stderr: what is running and how many steps are done."""

from __future__ import annotations

import shutil
import sys
import time

MARKS = 30


class Progress:
    """The progress of a run of `steps` steps. If stderr is not a terminal, only the last line is written."""

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
        """Write a line. In a terminal, it replaces the line before and is cut to the width, as a longer one would wrap."""
        width = shutil.get_terminal_size().columns - 1
        sys.stderr.write(f"\r{text[:width]:<{width}}" if self._in_place else text)
        sys.stderr.flush()
