"""Decides which sessions a login ends. Both stores call it with the user locked."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Login(NamedTuple):
    """A session family that has not been revoked."""

    family_id: str
    device_id: str
    last_seen_at_ms: int
    expires_at_ms: int


def is_alive(*, revoked: bool, expires_at_ms: int, now_ms: int) -> bool:
    """Return whether a family is neither revoked nor expired."""
    return not revoked and expires_at_ms > now_ms


def decide_login(logins: Iterable[Login], *, device_id: str, now_ms: int, limit: int) -> list[str]:
    """Return the ids of the families that a login on `device_id` ends.

    These are the device's own, and the least recently seen ones beyond `limit` families, including the new one.
    """
    former, others = [], []
    for login in logins:
        if login.device_id == device_id:
            former.append(login)
        elif login.expires_at_ms > now_ms:
            others.append(login)
    others.sort(key=lambda login: (-login.last_seen_at_ms, login.family_id))
    return sorted(login.family_id for login in (*former, *others[max(0, limit - 1) :]))
