"""Retry delays: exponential backoff with full jitter, never below what the server advised."""

from __future__ import annotations

from collections.abc import Callable

from openguild_proto.limits import BACKOFF_BASE_SECS, BACKOFF_MAX_SECS


class Backoff:
    """Delays drawn from 0 to `min(max_secs, base_secs * 2**attempt)`, so that many clients do not retry at once.

    `jitter()` returns a number in [0, 1).
    """

    __slots__ = ("_attempt", "_base", "_jitter", "_max")

    def __init__(
        self, jitter: Callable[[], float], *, base_secs: float = BACKOFF_BASE_SECS, max_secs: float = BACKOFF_MAX_SECS
    ) -> None:
        self._jitter = jitter
        self._base = base_secs
        self._max = max_secs
        self._attempt = 0

    def next_delay(self, advised_secs: float | None = None, *, at_once: bool = False) -> float:
        """Return the seconds to wait. Advice (`Retry-After`, a 1012 close) is a minimum, to which the jitter is added.

        `at_once`: nothing has failed, so the first delay is zero.
        """
        ceiling = min(self._max, self._base * float(1 << min(self._attempt, 16)))
        if at_once and self._attempt == 0:
            ceiling = 0.0
        self._attempt += 1
        return (advised_secs or 0.0) + self._jitter() * ceiling

    def connection_ended(self, secs: float) -> None:
        """Reset after a connection that was open for longer than the longest delay, even if it carried nothing."""
        if secs > self._max:
            self.reset()

    def reset(self) -> None:
        """Start again with the shortest delay, after a success."""
        self._attempt = 0
