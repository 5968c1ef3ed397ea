"""Detects a peer that has stopped responding, as opposed to one slow response among others."""

from __future__ import annotations

import math


class SilenceDetector:
    """`silent` is set when a query has waited for `timeout_secs` without any response in that time.

    Any response clears it. All times are monotonic seconds.
    """

    __slots__ = ("_heard_at", "_timeout", "silent")

    def __init__(self, timeout_secs: float) -> None:
        self._timeout = timeout_secs
        self._heard_at = -math.inf
        self.silent = False

    def response_received(self, now: float) -> None:
        """Record a response, which may be an error."""
        self._heard_at = now
        self.silent = False

    def unanswered(self, asked_at: float, now: float) -> bool:
        """Record that the query sent at `asked_at` has no response yet. Return whether silence begins now."""
        if self.silent or now - max(asked_at, self._heard_at) < self._timeout:
            return False
        self.silent = True
        return True
