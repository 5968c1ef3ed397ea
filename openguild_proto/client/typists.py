"""The users who are typing in a channel, as a client shows them (PROTOCOL 7.12.2)."""

from __future__ import annotations

from openguild_proto.limits import TYPING_SHOWN_SECS


class Typists:
    """Feed `signalled` and `posted`; `writing` are the users to show at a time."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}  # by user, in the order in which they began

    def signalled(self, user_id: str, preview: str | None, now: float) -> None:
        """A user writes, or with an empty `preview` no longer. `now`: monotonic seconds."""
        self._until = {user: until for user, until in self._until.items() if until > now}
        if preview == "":
            self._until.pop(user_id, None)
        else:
            self._until[user_id] = now + TYPING_SHOWN_SECS

    def posted(self, user_id: str) -> None:
        """The message of a user has come."""
        self._until.pop(user_id, None)

    def writing(self, now: float) -> list[str]:
        """Return the ids of those who write, by their beginning."""
        return [user for user, until in self._until.items() if until > now]

    def next_end(self, now: float) -> float | None:
        """Return when `writing` next becomes shorter by itself; None: nobody writes."""
        return min((until for until in self._until.values() if until > now), default=None)
