"""The reason texts of close frames, with their codes, and the parser of reconnect delays (PROTOCOL 8.9)."""

from __future__ import annotations

import re

EXPIRED = "token expired"  # 4401
SESSION_REVOKED = "session revoked"  # 4401
KEY_WITHDRAWN = "the key of this token was withdrawn"  # 4401
ACCESS_ENDED = "access ended"  # 4401, 4403 or 4404, after a re-check
CHANNEL_DELETED = "channel deleted"  # 4404
GUILD_DELETED = "guild deleted"  # 4404
ACCESS_UNKNOWN = "access cannot be checked; reconnect"  # 1012
NOTIFICATIONS_INTERRUPTED = "notifications interrupted; reconnect"  # 1012
TOO_MANY_CHANNELS = "too many channels for a notification stream; use the gateway"  # 1008
LOG_WENT_BACK = "the log of this channel went back; start again"  # 1012
SERVER_RESTARTING = "server restarting"  # 1012
CLOSED_BY_OPERATOR = "closed by the operator"  # 1012
NO_PONG = "no pong"  # 1011
SLOW_FRAME = "a frame took too long"  # 1008

_RECONNECT = re.compile(r"reconnect in ([0-9]{1,7}) ms")


def reconnect_after(why: str, delay_ms: int) -> str:
    """Return the reason of a 1012 close with a reconnect delay."""
    return f"{why}; reconnect in {delay_ms} ms"


def reconnect_secs(reason: str) -> float | None:
    """Return the delay in a `reconnect_after` reason, in seconds, or None if the reason has none."""
    found = _RECONNECT.search(reason)
    return int(found[1]) / 1000 if found else None


def log_unreadable(after: int) -> str:
    """Return the reason of a 1011 close after a failed replay, with the `since` to resume with."""
    return f"the log cannot be read; resume with since={after}"


def lagged(missed: int, resume_from: int | None) -> str:
    """Return the reason of a 1008 close: the number of missed messages and, for a channel's stream, the `since` to resume with.

    Clients that track sequences do not need it: they resume from the last sequence they received.
    """
    if resume_from is None:
        return f"lagged by {missed} notification messages"
    return f"lagged by {missed} messages; resume with since={resume_from}"
