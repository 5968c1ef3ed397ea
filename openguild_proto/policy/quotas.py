"""How many connections and streams may be open: in total, per user, per address (PROTOCOL 9.5)."""

from __future__ import annotations


class Quota:
    """At most `most` places under each key; a key costs memory only while somebody holds a place under it."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: dict[str, int] = {}

    def has_room(self, key: str) -> bool:
        """Whether one more may be taken under `key`."""
        return self._held.get(key, 0) < self._most

    def take(self, key: str) -> None:
        """Take a place, whether there is room or not: look first."""
        self._held[key] = self._held.get(key, 0) + 1

    def give_back(self, key: str) -> None:
        """Return a place taken under `key`. Raises KeyError where none is held."""
        left = self._held[key] - 1
        if left:
            self._held[key] = left
        else:
            del self._held[key]


class StreamLimiter:
    """Quotas of streams. `address`: its `limit_key`."""

    def __init__(self, max_total: int, max_per_user: int, max_per_address: int) -> None:
        self.max_total = max_total  # may be changed; what is reserved stays
        self._users = Quota(max_per_user)
        self._addresses = Quota(max_per_address)
        self.total = 0

    def reserve(self, user_id: str, address: str) -> bool:
        """Take a place, or change nothing and answer False."""
        has_room = self._users.has_room(user_id) and self._addresses.has_room(address)
        if self.total >= self.max_total or not has_room:
            return False
        self.total += 1
        self._users.take(user_id)
        self._addresses.take(address)
        return True

    def release(self, user_id: str, address: str) -> None:
        """Give a reserved place back."""
        self.total -= 1
        self._users.give_back(user_id)
        self._addresses.give_back(address)
