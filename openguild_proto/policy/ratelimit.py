"""Sliding-window limits (PROTOCOL 9.1), exact and bounded in memory."""

from __future__ import annotations

from collections import OrderedDict, deque
from math import ceil

from openguild_proto.limits import MAX_WINDOW_KEYS, SHARE_RETRY_SECS


class SlidingWindow:
    """At most `limit` admissions per key in any span of `window_secs`.

    The times of a key's admissions are kept, so there is no burst at the edge of a window. Keys are ordered by their last
    admission and dropped when it has left the window. Beyond `max_keys` keys the one admitted longest ago is evicted. A
    refusal does not move its key, so to have a key evicted early an attacker needs admissions under `max_keys` others.
    """

    def __init__(self, limit: int, window_secs: float, max_keys: int = MAX_WINDOW_KEYS) -> None:
        self.limit = limit
        self.window_secs = window_secs
        self._max_keys = max_keys
        self._admitted: OrderedDict[str, deque[float]] = OrderedDict()
        self.divisor = 1  # set above 1 while replicas do not hear from each other
        self.fresh: dict[str, int] | None = None  # admissions not yet published to other replicas (limit_sharing.py)

    def change(self, limit: int, window_secs: float) -> None:
        """Set new bounds. Earlier admissions still count."""
        self.limit = limit
        self.window_secs = window_secs

    def hit(self, key: str, now: float, count: int = 1) -> float | None:
        """Admit `count` more. Return None if admitted, else the seconds to wait. A refusal is not counted."""
        wait = self.peek(key, now, count)
        if wait is not None:
            return wait
        self._keep(key, count, now)
        if self.fresh is not None and len(self.fresh) < self._max_keys:
            self.fresh[key] = self.fresh.get(key, 0) + count
        return None

    def refund(self, key: str) -> None:
        """Undo the newest admission. Replicas that were told of it still count it."""
        times = self._admitted.get(key)
        if times:
            times.pop()
        if self.fresh and key in self.fresh:
            self.fresh[key] -= 1
            if not self.fresh[key]:
                del self.fresh[key]

    def absorb(self, key: str, count: int, now: float) -> None:
        """Count `count` admissions of another replica."""
        self._keep(key, min(count, self.limit), now)

    def take_fresh(self) -> dict[str, int]:
        """Return the local admissions since the last call, by key."""
        fresh, self.fresh = self.fresh or {}, {}
        return fresh

    def _keep(self, key: str, count: int, now: float) -> None:
        times = self._admitted.get(key)
        if times is None:
            self._expire(now)
            times = self._admitted[key] = deque()
        times.extend([now] * count)
        while len(times) > self.limit:
            times.popleft()  # bounds memory: only the newest `limit` matter
        self._admitted.move_to_end(key)

    def peek(self, key: str, now: float, count: int = 1) -> float | None:
        """Return what `hit` would, without admitting. A `count` above the limit counts as the limit."""
        times = self._admitted.get(key)
        if times is None:
            return None
        start = now - self.window_secs
        while times and times[0] <= start:
            times.popleft()
        return self._wait(times, start, min(count, self._share))

    @property
    def _share(self) -> int:
        return max(1, self.limit // self.divisor)

    def _wait(self, times: deque[float], start: float, count: int) -> float | None:
        """Return the seconds until `count` more are admitted, or None if they are admitted now."""
        room = self._share - count  # this many earlier admissions leave room for `count`
        if len(times) <= room:
            return None
        wait = times[-room - 1] - start
        if self.divisor == 1:
            return wait
        whole = self.limit - count
        least = times[-whole - 1] - start if len(times) > whole else 0.0
        return min(wait, max(least, SHARE_RETRY_SECS))

    def left(self, key: str, now: float) -> tuple[int, int]:
        """Return how many more are admitted now, and the seconds until that number grows."""
        times = self._admitted.get(key)
        start = now - self.window_secs
        while times and times[0] <= start:
            times.popleft()
        if not times:
            return self._share, ceil(self.window_secs)
        wait = self._wait(times, start, 1)
        return max(0, self._share - len(times)), ceil(times[0] - start if wait is None else wait)

    def _expire(self, now: float) -> None:
        start = now - self.window_secs
        while self._admitted:
            key, times = next(iter(self._admitted.items()))
            if len(self._admitted) < self._max_keys and times and times[-1] > start:
                break
            del self._admitted[key]

    def __len__(self) -> int:
        """Return the number of stored keys."""
        return len(self._admitted)
