"""Hints about users, gathered so that a socket gets them in one write."""

from __future__ import annotations

from collections.abc import Mapping


class HintFrames:
    """Whole WebSocket messages, each about one user, who is not given their own.

    `momentary`: such as typing. A socket whose rights are being read again is not given it, then or later.
    """

    __slots__ = ("_all", "_by_user", "momentary")

    def __init__(self, by_user: Mapping[str, bytes], *, momentary: bool = False) -> None:
        self.momentary = momentary
        self._by_user = by_user
        self._all = b"".join(by_user.values())

    def for_user(self, user_id: str | None) -> bytes:
        """Return what this user is told of the others; b"": nothing."""
        if user_id not in self._by_user:
            return self._all
        return b"".join(message for about, message in self._by_user.items() if about != user_id)
