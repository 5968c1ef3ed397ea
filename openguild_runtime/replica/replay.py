"""Pages of the log for replays: read once for all who ask together, and kept a while, because a log never changes
until its database is restored.

A reconnect storm asks for the same few pages thousands of times (architecture, "Storm cost"). What is kept is bounded
in bytes; pages go when their channel is deleted.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

import anyio
import structlog

from openguild_proto.effects import ReadEvents, StorageUnavailable
from openguild_proto.records import StoredEvent
from openguild_proto.schemas.stream import event_frame_payload
from openguild_proto.ws.frames import text_frame
from openguild_runtime.net.transport import SEND_BYTES
from openguild_runtime.storage.base import Storage

KEPT_BYTES = 8 * 1024 * 1024

Pieces = list[tuple[int, bytes]]
"""(last sequence in it, whole frames) for each piece of about `SEND_BYTES`."""

log = structlog.get_logger("openguild.replay")


class _Page:
    """A page that is being read, or has been."""

    __slots__ = ("done", "pieces", "size")

    def __init__(self) -> None:
        self.done: anyio.Event | None = anyio.Event()
        self.pieces: Pieces = []
        self.size = 0


class ReplayPages:
    """`read` gives the frames behind a sequence; an empty answer: the log cannot be read, or the channel is gone."""

    def __init__(self, storage: Storage, kept_bytes: int = KEPT_BYTES) -> None:
        self._storage = storage
        self._kept_bytes = kept_bytes
        self._pages: OrderedDict[tuple[str, int], _Page] = OrderedDict()
        self._bytes = 0

    async def read(self, channel_id: str, after: int, count: int) -> Pieces:
        """Up to `count` events behind sequence `after`, as frames. Two that ask for the same page share one read."""
        key = (channel_id, after)
        page = self._pages.get(key)
        if page is None:
            page = self._pages[key] = _Page()
            await self._fill(key, page, count)
        elif page.done is not None:
            await page.done.wait()
        else:
            self._pages.move_to_end(key)
        return page.pieces

    async def _fill(self, key: tuple[str, int], page: _Page, count: int) -> None:
        channel_id, after = key
        try:
            events = await self._storage.perform(ReadEvents(channel_id=channel_id, after=after, limit=count))
            page.pieces = in_pieces(events or ())
        except StorageUnavailable:
            log.warning("a replay was cut short: the log cannot be read", channel_id=channel_id)
        finally:
            if page.done is not None:
                page.done.set()
                page.done = None
            page.size = sum(len(piece) for _, piece in page.pieces)
            self._bytes += page.size
            if not page.pieces or self._pages.get(key) is not page:
                self._forget(key, page)
            while self._bytes > self._kept_bytes and self._pages:
                oldest, kept = next(iter(self._pages.items()))
                self._forget(oldest, kept)

    def _forget(self, key: tuple[str, int], page: _Page) -> None:
        self._bytes -= page.size
        page.size = 0
        if self._pages.get(key) is page:
            del self._pages[key]

    def drop_channel(self, channel_id: str) -> None:
        """Keep nothing of this channel."""
        for key, page in [item for item in self._pages.items() if item[0][0] == channel_id]:
            self._forget(key, page)

    def drop_all(self) -> None:
        """The log is not the one these were read from."""
        for key, page in list(self._pages.items()):
            self._forget(key, page)

    @property
    def nbytes(self) -> int:
        """Bytes kept."""
        return self._bytes


def in_pieces(events: Iterable[StoredEvent]) -> Pieces:
    """Frames joined to pieces of about `SEND_BYTES`, each with the last sequence in it."""
    pieces: Pieces = []
    frames: list[bytes] = []
    size = last = 0
    for event in events:
        frame = text_frame(event_frame_payload(event))
        if frames and size + len(frame) > SEND_BYTES:
            pieces.append((last, b"".join(frames)))
            frames, size = [], 0
        frames.append(frame)
        size += len(frame)
        last = event.sequence
    if frames:
        pieces.append((last, b"".join(frames)))
    return pieces
