"""The text of a scrape, cached and shared by concurrent scrapes.

Every client that reaches the listener can request the metrics, and rendering them takes tens of milliseconds of the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import anyio

from openguild_runtime.server.siblings import WorkerSlot, gather
from openguild_runtime.system.turns import Turn


class Exposition:
    """The metrics of this process, or of all workers. A text is served for `max_age_secs`; 0 renders one for each scrape.

    `render()` yields the text in pieces; the loop may run other tasks between two of them.
    Another worker's part is up to `max_age_secs` old on arrival, so the text of all workers can be twice as old.
    """

    def __init__(
        self,
        render: Callable[[], Iterable[bytes]],
        slot: WorkerSlot | None,
        *,
        max_age_secs: float,
        clock: Callable[[], float],
    ) -> None:
        self._render = render
        self._slot = slot
        self._max_age_secs = max_age_secs
        self._clock = clock
        self._turn = Turn(clock)
        self._own: tuple[float, bytes] | None = None  # (when, text)
        self._whole: tuple[float, bytes] | None = None
        self._rendering, self._gathering = anyio.Lock(), anyio.Lock()

    async def own(self) -> bytes:
        """Return the metrics of this process alone, for a sibling. Concurrent calls share one rendering."""
        async with self._rendering:
            text = self._fresh(self._own)
            if text is None:
                pieces: list[bytes] = []
                await self._turn.each(self._render(), pieces.append)
                text = b"".join(pieces)
                self._own = self._clock(), text
        return text

    async def whole(self) -> bytes:
        """Return the text of a scrape: of all workers, if there are several. Concurrent calls share one rendering."""
        if self._slot is None:
            return await self.own()
        async with self._gathering:
            text = self._fresh(self._whole)
            if text is None:
                text = await gather(self._slot, self.own)
                self._whole = self._clock(), text
        return text

    def _fresh(self, kept: tuple[float, bytes] | None) -> bytes | None:
        return kept[1] if kept is not None and self._clock() - kept[0] < self._max_age_secs else None
