"""The reasons of close frames that tell a client something, each beside what reads it (CONTRACT 8, A7)."""

from __future__ import annotations

import re

_RECONNECT = re.compile(r"reconnect in ([0-9]{1,7}) ms")


def reconnect_after(why: str, delay_ms: int) -> str:
    """Of a 1012 close: when to come back."""
    return f"{why}; reconnect in {delay_ms} ms"


def reconnect_secs(reason: str) -> float | None:
    """The delay that `reconnect_after` named, in seconds; None where there is none."""
    found = _RECONNECT.search(reason)
    return int(found[1]) / 1000 if found else None


def lagged(missed: int, resume_from: int | None) -> str:
    """Of a 1008 close: how much was missed and, of a channel's stream, the `since` to resume with.

    For people and for clients that do not count: ours resumes from the last sequence it was given.
    """
    if resume_from is None:
        return f"lagged by {missed} notification messages"
    return f"lagged by {missed} messages; resume with since={resume_from}"
