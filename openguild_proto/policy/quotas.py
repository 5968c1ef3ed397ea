"""Counts open connections and streams: in total, per user, per address (PROTOCOL 9.5)."""

from __future__ import annotations


class Quota:
    """At most `most` places for each key. A key uses memory only while one of its places is taken."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._held: dict[str, int] = {}

    def has_room(self, key: str) -> bool:
        """Return whether one more place of `key` may be taken."""
        return self._held.get(key, 0) < self.most

    def left(self, key: str) -> int:
        """Return how many more places of `key` may be taken."""
        return self.most - self._held.get(key, 0)

    def take(self, key: str) -> None:
        """Take a place without a check: call `has_room` first."""
        self._held[key] = self._held.get(key, 0) + 1

    def give_back(self, key: str) -> None:
        """Release a place of `key`. Raises KeyError if none is taken."""
        left = self._held[key] - 1
        if left:
            self._held[key] = left
        else:
            del self._held[key]


class StreamLimiter:
    """The quotas of streams. `address`: its `limit_key`."""

    def __init__(self, max_total: int, max_per_user: int, max_per_address: int) -> None:
        self.max_total = max_total  # may be changed; reserved places stay
        self.users = Quota(max_per_user)
        self.addresses = Quota(max_per_address)
        self.total = 0

    def reserve(self, user_id: str | None, address: str) -> bool:
        """Reserve a place. At a limit, return False and change nothing. `user_id` None: the user is given later, by `claim`."""
        has_room = self.addresses.has_room(address) and (user_id is None or self.users.has_room(user_id))
        if self.total >= self.max_total or not has_room:
            return False
        self.total += 1
        self.addresses.take(address)
        if user_id is not None:
            self.users.take(user_id)
        return True

    def claim(self, user_id: str) -> bool:
        """Assign a place that was reserved without a user to `user_id`. At the user's limit, return False and change nothing."""
        if not self.users.has_room(user_id):
            return False
        self.users.take(user_id)
        return True

    def release(self, user_id: str | None, address: str) -> None:
        """Release a reserved place. `user_id` None: no user has claimed it."""
        self.total -= 1
        self.addresses.give_back(address)
        if user_id is not None:
            self.users.give_back(user_id)
