"""The users who are typing in a channel, as a client shows them (PROTOCOL 7.12.2)."""

from __future__ import annotations

from openguild_proto.limits import TYPING_SHOWN_SECS


class TypingUsers:
    """The typing users. Call `signalled` and `posted`; `writing` returns the users to show."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}  # by user, in the order in which they began to type

    def signalled(self, user_id: str, preview: str | None, now: float) -> None:
        """Handle a typing signal. An empty `preview` means that the user has stopped. `now`: monotonic seconds."""
        self._until = {user: until for user, until in self._until.items() if until > now}
        if preview == "":
            self._until.pop(user_id, None)
        else:
            self._until[user_id] = now + TYPING_SHOWN_SECS

    def posted(self, user_id: str) -> None:
        """Handle a message of a user: they have stopped typing."""
        self._until.pop(user_id, None)

    def writing(self, now: float) -> list[str]:
        """Return the ids of the typing users, in the order in which they began."""
        return [user for user, until in self._until.items() if until > now]

    def next_end(self, now: float) -> float | None:
        """Return when the next signal expires, or None if nobody is typing."""
        return min((until for until in self._until.values() if until > now), default=None)
