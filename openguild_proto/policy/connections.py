"""How many streams may be open: in total, per user, per address (CONTRACT A7, D-15)."""

from __future__ import annotations


class ConnectionLimiter:
    """Counts places; an entry lives only while somebody holds a place under its key. `address`: its `limit_key`."""

    def __init__(self, max_total: int, max_per_user: int, max_per_address: int) -> None:
        self._max_total = max_total
        self._max_per_user = max_per_user
        self._max_per_address = max_per_address
        self._users: dict[str, int] = {}
        self._addresses: dict[str, int] = {}
        self.total = 0

    def reserve(self, user_id: str, address: str) -> bool:
        """Take a place, or change nothing and answer False."""
        users, addresses = self._users.get(user_id, 0), self._addresses.get(address, 0)
        if self.total >= self._max_total or users >= self._max_per_user or addresses >= self._max_per_address:
            return False
        self.total += 1
        self._users[user_id] = users + 1
        self._addresses[address] = addresses + 1
        return True

    def release(self, user_id: str, address: str) -> None:
        """Give a reserved place back."""
        self.total -= 1
        _count_down(self._users, user_id)
        _count_down(self._addresses, address)


def _count_down(counts: dict[str, int], key: str) -> None:
    left = counts[key] - 1
    if left:
        counts[key] = left
    else:
        del counts[key]
