"""Clocks that a test can move, relative to the real ones."""

from __future__ import annotations

import time

from openguild_runtime.system.clocks_and_entropy import ClocksAndEntropy


class Clocks:
    """`passed`: seconds added to both clocks; `set_by`: seconds by which only the wall clock was set."""

    def __init__(self) -> None:
        self.passed = self.set_by = 0.0
        self.sources = ClocksAndEntropy(
            monotonic=lambda: time.monotonic() + self.passed, wall=lambda: time.time() + self.passed + self.set_by
        )
