"""Sliding-window limits (PROTOCOL 9.1), exact and bounded in memory."""

from __future__ import annotations

from collections import OrderedDict, deque

from openguild_proto.limits import MAX_WINDOW_KEYS


class SlidingWindow:
    """At most `limit` admissions per key in any span of `window_secs`.

    The times of a key's admissions are kept, so there is no burst at a window's edge. Keys are ordered by their
    last admission and forgotten when it has left the window. When `max_keys` are alive at once, the key admitted
    longest ago is forgotten; a limited key is refused without being touched, so to be forgiven early an attacker
    must spend `max_keys` admissions on other keys, each of which they would also need to own.
    """

    def __init__(self, limit: int, window_secs: float, max_keys: int = MAX_WINDOW_KEYS) -> None:
        self.limit = limit
        self.window_secs = window_secs
        self._max_keys = max_keys
        self._admitted: OrderedDict[str, deque[float]] = OrderedDict()
        self.divisor = 1  # replicas that share the limit without hearing of each other
        self.fresh: dict[str, int] | None = None  # admissions that other replicas have not been told (limit_sharing.py)

    def change(self, limit: int, window_secs: float) -> None:
        """Other bounds from now on; what was admitted stays counted."""
        self.limit = limit
        self.window_secs = window_secs

    def hit(self, key: str, now: float) -> float | None:
        """Admit one more: None, or the seconds after which it would be admitted. A refusal is not counted."""
        wait = self.peek(key, now)
        if wait is not None:
            return wait
        self._keep(key, 1, now)
        if self.fresh is not None and len(self.fresh) < self._max_keys:
            self.fresh[key] = self.fresh.get(key, 0) + 1
        return None

    def refund(self, key: str) -> None:
        """Take back the newest admission. Replicas that have been told of it go on counting it."""
        times = self._admitted.get(key)
        if times:
            times.pop()
        if self.fresh and key in self.fresh:
            self.fresh[key] -= 1
            if not self.fresh[key]:
                del self.fresh[key]

    def absorb(self, key: str, count: int, now: float) -> None:
        """Another replica has admitted `count`."""
        self._keep(key, min(count, self.limit), now)

    def take_fresh(self) -> dict[str, int]:
        """What was admitted here since the last call, by key."""
        fresh, self.fresh = self.fresh or {}, {}
        return fresh

    def _keep(self, key: str, count: int, now: float) -> None:
        times = self._admitted.get(key)
        if times is None:
            self._expire(now)
            times = self._admitted[key] = deque()
        times.extend([now] * count)
        while len(times) > self.limit:
            times.popleft()  # bounded: the newest `limit` decide
        self._admitted.move_to_end(key)

    def peek(self, key: str, now: float) -> float | None:
        """What `hit` would answer, without admitting."""
        times = self._admitted.get(key)
        if times is None:
            return None
        start = now - self.window_secs
        while times and times[0] <= start:
            times.popleft()
        limit = max(1, self.limit // self.divisor)
        return times[-limit] - start if len(times) >= limit else None

    def _expire(self, now: float) -> None:
        start = now - self.window_secs
        while self._admitted:
            key, times = next(iter(self._admitted.items()))
            if len(self._admitted) < self._max_keys and times and times[-1] > start:
                break
            del self._admitted[key]

    def __len__(self) -> int:
        """Keys remembered."""
        return len(self._admitted)
