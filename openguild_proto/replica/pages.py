"""Pages of the log for replays: read once for all sockets that ask together, and kept a while, because a log never changes
until its database is restored.

A reconnect storm asks for the same few pages thousands of times. What is kept is bounded in bytes; pages go when their channel is
deleted.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

from openguild_proto.effects.base import StorageUnavailable
from openguild_proto.effects.channels import ReadEvents
from openguild_proto.limits import KEPT_PAGE_BYTES, PIECE_BYTES
from openguild_proto.procedures import Procedure
from openguild_proto.records import StoredEvent
from openguild_proto.replica.actions import Level, Replay
from openguild_proto.replica.outputs import Outputs
from openguild_proto.schemas.stream import event_frame_payload
from openguild_proto.ws.frames import text_frame

PAGE_OVERHEAD_BYTES = 400  # measured: of a page beside its pieces
PIECE_OVERHEAD_BYTES = 120

Pieces = list[tuple[int, bytes]]
"""(last sequence in it, whole frames) for each piece of about `PIECE_BYTES`."""


class _Page:
    """`waiting`: sockets that asked for it while it was being read."""

    __slots__ = ("is_reading", "pieces", "size", "waiting")

    def __init__(self) -> None:
        self.is_reading = False
        self.pieces: Pieces = []
        self.size = 0
        self.waiting: list[Any] = []


class Pages:
    """`get` gives the frames behind a sequence; an empty page: the log cannot be read, or the channel is gone."""

    def __init__(self, outputs: Outputs, kept_bytes: int = KEPT_PAGE_BYTES) -> None:
        self._outputs = outputs
        self._kept_bytes = kept_bytes
        self._pages: OrderedDict[tuple[str, int], _Page] = OrderedDict()
        self._unreadable: dict[Any, None] = {}  # sockets whose page could not be read
        self._bytes = 0

    def get(self, channel_id: str, after: int, count: int, socket: Any) -> Pieces | None:
        """Up to `count` events behind sequence `after`. None: it is being read; a `Replay` of `socket` follows when it is there.

        A page that was kept when the log was shorter grows by what it lacks.
        """
        if socket in self._unreadable:
            del self._unreadable[socket]
            return []
        key = (channel_id, after)
        page = self._pages.get(key)
        if page is None:
            page = self._pages[key] = _Page()
        elif not page.is_reading and page.pieces[-1][0] - after >= count:
            self._pages.move_to_end(key)
            return page.pieces
        page.waiting.append(socket)
        if not page.is_reading:
            page.is_reading = True
            self._outputs.procedures.start(self._read(key, page, count), "reading a page for a replay")
        return None

    def _read(self, key: tuple[str, int], page: _Page, count: int) -> Procedure[None]:
        channel_id, after = key
        begin = page.pieces[-1][0] if page.pieces else after
        more: Pieces = []
        try:
            events = yield from ReadEvents(channel_id=channel_id, after=begin, limit=after + count - begin)
            more = in_pieces(events or ())
        except StorageUnavailable:
            self._outputs.log(Level.WARNING, "a replay was cut short: the log cannot be read", channel_id=channel_id)
        finally:
            page.is_reading = False
            is_kept = self._pages.get(key) is page  # else it was dropped meanwhile: this may be of another log
            self._tell_waiting(page, unreadable=is_kept and not more)
            if is_kept:
                page.pieces = _joined(page.pieces, more)
                self._account(key, page)

    def _tell_waiting(self, page: _Page, *, unreadable: bool) -> None:
        waiting, page.waiting = page.waiting, []
        for socket in waiting:
            if unreadable:
                self._unreadable[socket] = None
            self._outputs.add(Replay(socket))

    def _account(self, key: tuple[str, int], page: _Page) -> None:
        if not page.pieces:
            self._forget(key, page)
            return
        self._bytes -= page.size
        page.size = PAGE_OVERHEAD_BYTES + sum(PIECE_OVERHEAD_BYTES + len(piece) for _, piece in page.pieces)
        self._bytes += page.size
        while self._bytes > self._kept_bytes and len(self._pages) > 1:
            oldest, kept = next(iter(self._pages.items()))
            self._forget(oldest, kept)

    def _forget(self, key: tuple[str, int], page: _Page) -> None:
        self._bytes -= page.size
        page.size = 0
        if self._pages.get(key) is page:
            del self._pages[key]

    def left(self, socket: Any) -> None:
        """The socket is gone: nothing is kept for it."""
        self._unreadable.pop(socket, None)

    def drop_channel(self, channel_id: str) -> None:
        """Keep nothing of this channel."""
        for key, page in [item for item in self._pages.items() if item[0][0] == channel_id]:
            self._forget(key, page)

    def drop_all(self) -> None:
        """The log is not the one that these were read from."""
        for key, page in list(self._pages.items()):
            self._forget(key, page)

    @property
    def nbytes(self) -> int:
        """Bytes kept, what the pages take beside their frames included."""
        return self._bytes


def _joined(pieces: Pieces, more: Pieces) -> Pieces:
    """A new list: a socket may be reading the other one."""
    if not pieces or not more or len(pieces[-1][1]) + len(more[0][1]) > PIECE_BYTES:
        return pieces + more
    return [*pieces[:-1], (more[0][0], pieces[-1][1] + more[0][1]), *more[1:]]


def in_pieces(events: Iterable[StoredEvent]) -> Pieces:
    """Join frames to pieces of about `PIECE_BYTES`, each with the last sequence in it."""
    pieces: Pieces = []
    frames: list[bytes] = []
    size = last = 0
    for event in events:
        frame = text_frame(event_frame_payload(event))
        if frames and size + len(frame) > PIECE_BYTES:
            pieces.append((last, b"".join(frames)))
            frames, size = [], 0
        frames.append(frame)
        size += len(frame)
        last = event.sequence
    if frames:
        pieces.append((last, b"".join(frames)))
    return pieces
