"""What a scrape gets: rendered once in a while, however many ask.

Whoever reaches the listener may ask for the metrics, and to render them costs milliseconds of the loop.
"""

from __future__ import annotations

from collections.abc import Callable

import anyio

from openguild_runtime.siblings import Seat, gather


class Exposition:
    """The metrics of this process, or those of all workers; a text serves for `max_age_secs`. 0: each reader gets a new one.

    What another worker gave is up to `max_age_secs` old when it comes, so a text of all workers may be twice that.
    """

    def __init__(
        self, render: Callable[[], bytes], seat: Seat | None, *, max_age_secs: float, clock: Callable[[], float]
    ) -> None:
        self._render = render
        self._seat = seat
        self._max_age_secs = max_age_secs
        self._clock = clock
        self._own: tuple[float, bytes] | None = None  # (when, text)
        self._whole: tuple[float, bytes] | None = None
        self._gathering = anyio.Lock()

    async def own(self) -> bytes:
        """This process's: what a sibling asks for."""
        text = self._fresh(self._own)
        if text is None:
            text = self._render()
            self._own = self._clock(), text
        return text

    async def whole(self) -> bytes:
        """What a scrape gets. Whoever asks meanwhile waits for the same text."""
        if self._seat is None:
            return await self.own()
        async with self._gathering:
            text = self._fresh(self._whole)
            if text is None:
                text = await gather(self._seat, self.own)
                self._whole = self._clock(), text
        return text

    def _fresh(self, kept: tuple[float, bytes] | None) -> bytes | None:
        return kept[1] if kept is not None and self._clock() - kept[0] < self._max_age_secs else None
