"""Hints about users, collected so that a socket receives them in one write."""

from __future__ import annotations

from collections.abc import Mapping


class HintFrames:
    """Whole WebSocket messages, each about one user. Users do not receive the hints about themselves.

    `momentary`: for hints such as typing, which a socket never receives if its rights are being read again at that moment.
    """

    __slots__ = ("_all", "_by_user", "momentary")

    def __init__(self, by_user: Mapping[str, bytes], *, momentary: bool = False) -> None:
        self.momentary = momentary
        self._by_user = by_user
        self._all = b"".join(by_user.values())

    def for_user(self, user_id: str | None) -> bytes:
        """Return the messages about users other than this one, b"" if there are none."""
        if user_id not in self._by_user:
            return self._all
        return b"".join(message for about, message in self._by_user.items() if about != user_id)
