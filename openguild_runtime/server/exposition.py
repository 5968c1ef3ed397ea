"""The text of a scrape, rendered at most once in a while for any number of scrapes.

Anybody who reaches the listener may ask for the metrics. Rendering them takes tens of milliseconds of the loop, so it is shared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import anyio

from openguild_runtime.server.siblings import WorkerSlot, gather
from openguild_runtime.system.turns import Turn


class Exposition:
    """The metrics of this process, or those of all workers; a text serves for `max_age_secs`. 0: each reader gets a new one.

    `render()` gives the text in pieces, between which the loop may turn.
    Another worker's part is up to `max_age_secs` old when it comes, so the text of all workers may be twice that.
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
        """Return the metrics of this process, as a sibling asks for them. Requests that come meanwhile wait for the same text."""
        async with self._rendering:
            text = self._fresh(self._own)
            if text is None:
                pieces: list[bytes] = []
                await self._turn.each(self._render(), pieces.append)
                text = b"".join(pieces)
                self._own = self._clock(), text
        return text

    async def whole(self) -> bytes:
        """Return the text of a scrape. Scrapes that come meanwhile wait for the same text."""
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
