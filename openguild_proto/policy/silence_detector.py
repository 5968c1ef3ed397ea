"""Detects a peer that has stopped responding, and tells it from one slow response among others."""

from __future__ import annotations

import math


class SilenceDetector:
    """`silent` begins when a question has waited for `timeout_secs` while nothing else was answered either. Any response
    ends it. All times are monotonic seconds."""

    __slots__ = ("_heard_at", "_timeout", "silent")

    def __init__(self, timeout_secs: float) -> None:
        self._timeout = timeout_secs
        self._heard_at = -math.inf
        self.silent = False

    def heard(self, now: float) -> None:
        """Note a response; a refusal is one too."""
        self._heard_at = now
        self.silent = False

    def unanswered(self, asked_at: float, now: float) -> bool:
        """Note that a question of `asked_at` has no response yet. Return whether silence begins with that."""
        if self.silent or now - max(asked_at, self._heard_at) < self._timeout:
            return False
        self.silent = True
        return True
