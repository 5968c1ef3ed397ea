"""The reasons that close frames give, each under its code, and what reads them (PROTOCOL 8.9)."""

from __future__ import annotations

import re

EXPIRED = "token expired"  # 4401
SESSION_REVOKED = "session revoked"  # 4401
KEY_WITHDRAWN = "the key of this token was withdrawn"  # 4401
ACCESS_ENDED = "access ended"  # 4401, 4403 or 4404: what a re-check found
CHANNEL_DELETED = "channel deleted"  # 4404
GUILD_DELETED = "guild deleted"  # 4404
ACCESS_UNKNOWN = "access cannot be checked; reconnect"  # 1012
NOTIFICATIONS_INTERRUPTED = "notifications interrupted; reconnect"  # 1012
LOG_WENT_BACK = "the log of this channel went back; begin anew"  # 1012
SERVER_RESTARTING = "server restarting"  # 1012
CLOSED_BY_OPERATOR = "closed by the operator"  # 1012
NO_PONG = "no pong"  # 1011
SLOW_FRAME = "a frame took too long"  # 1008

_RECONNECT = re.compile(r"reconnect in ([0-9]{1,7}) ms")


def reconnect_after(why: str, delay_ms: int) -> str:
    """Of a 1012 close: when to come back."""
    return f"{why}; reconnect in {delay_ms} ms"


def reconnect_secs(reason: str) -> float | None:
    """The delay that `reconnect_after` named, in seconds; None where there is none."""
    found = _RECONNECT.search(reason)
    return int(found[1]) / 1000 if found else None


def log_unreadable(after: int) -> str:
    """Of a 1011 close: a replay cannot go on, and the `since` to resume with."""
    return f"the log cannot be read; resume with since={after}"


def lagged(missed: int, resume_from: int | None) -> str:
    """Of a 1008 close: how much was missed and, of a channel's stream, the `since` to resume with.

    For people and for clients that do not count: ours resumes from the last sequence it was given.
    """
    if resume_from is None:
        return f"lagged by {missed} notification messages"
    return f"lagged by {missed} messages; resume with since={resume_from}"
