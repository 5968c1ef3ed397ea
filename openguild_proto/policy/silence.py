"""Whether somebody who is asked things still answers: what tells a silent store from one slow answer among others."""

from __future__ import annotations

import math


class Silence:
    """`silent` begins when a question has waited for `patience_secs` and nothing else was answered meanwhile, and ends
    with the first answer to anything. All times are monotonic seconds."""

    __slots__ = ("_heard", "_patience", "silent")

    def __init__(self, patience_secs: float) -> None:
        self._patience = patience_secs
        self._heard = -math.inf
        self.silent = False

    def heard(self, now: float) -> None:
        """Something was answered; a refusal is an answer, too."""
        self._heard = now
        self.silent = False

    def unanswered(self, asked_at: float, now: float) -> bool:
        """A question asked then has no answer yet. Returns whether silence begins with that."""
        if self.silent or now - max(asked_at, self._heard) < self._patience:
            return False
        self.silent = True
        return True
