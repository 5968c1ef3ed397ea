"""One line on stderr that says what runs and how much is left."""

from __future__ import annotations

import sys
import time


class Progress:
    """`steps`: how many there will be. Without a terminal it writes nothing but the end."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.done = 0
        self.started = time.monotonic()

    def step(self, what: str) -> None:
        """Begin the next step."""
        if sys.stderr.isatty():
            filled = min(30, int(30 * self.done / self.steps))
            spent = time.monotonic() - self.started
            line = f"[{'#' * filled}{'.' * (30 - filled)}] {self.done}/{self.steps} {spent:4.0f} s  {what:<40}"
            sys.stderr.write(f"\r{line}")
            sys.stderr.flush()
        self.done += 1

    def end(self) -> None:
        """Finish the line."""
        sys.stderr.write(f"\r{self.done} steps, {time.monotonic() - self.started:.0f} s{'':70}\n")
