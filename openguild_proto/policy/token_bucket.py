"""A rate limit for frequent actions. It keeps one number for each key; a sliding window keeps a time for each admission."""

from __future__ import annotations

from collections import OrderedDict

from openguild_proto.limits import MAX_WINDOW_KEYS


class TokenBucket:
    """A bucket of `limit` admissions for each key, which refills evenly over `window_secs`. Any such span admits at most twice
    `limit`.

    Keys whose bucket is full again are dropped. Beyond `max_keys` keys, the one admitted longest ago is dropped.
    """

    def __init__(self, limit: int, window_secs: float, max_keys: int = MAX_WINDOW_KEYS) -> None:
        self.limit = limit
        self.window_secs = window_secs
        self._max_keys = max_keys
        # The time when each bucket is full again; the key admitted longest ago comes first.
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def change(self, limit: int, window_secs: float) -> None:
        """Set other bounds. Earlier admissions still count, for as long as before."""
        self.limit = limit
        self.window_secs = window_secs

    def hit(self, key: str, now: float, count: int = 1) -> float | None:
        """Admit one more, or `count` together, which must not exceed `limit`. Return None if admitted, otherwise the seconds to
        wait. A refusal is not counted.
        """
        found = self._full_at.get(key)
        if found is None:
            self._expire(now)
        full_at = (now if found is None or found < now else found) + min(
            count, self.limit
        ) * self.window_secs / self.limit
        wait = full_at - now - self.window_secs
        if wait > 1e-6:  # the rounding error of adding thousands of fractions
            return wait
        self._full_at[key] = full_at
        self._full_at.move_to_end(key)
        return None

    def _expire(self, now: float) -> None:
        while self._full_at:
            key, full_at = next(iter(self._full_at.items()))
            if len(self._full_at) < self._max_keys and full_at > now:
                break
            del self._full_at[key]

    def __len__(self) -> int:
        """Return the number of keys that are kept."""
        return len(self._full_at)
