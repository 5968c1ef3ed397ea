"""Pages of the log for replays: read once for all sockets that request them together, and cached for a while, because a log never
changes until its database is restored.

A reconnect storm requests the same few pages thousands of times. The cache is bounded in bytes; pages are dropped when their
channel is deleted.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, NamedTuple

from openguild_proto.effects.base import StorageUnavailable
from openguild_proto.effects.channels import ReadEvents
from openguild_proto.limits import KEPT_PAGE_BYTES, PIECE_BYTES
from openguild_proto.procedures import Procedure
from openguild_proto.records import StoredEvent
from openguild_proto.replica.actions import Level, Replay
from openguild_proto.replica.outputs import Outputs
from openguild_proto.schemas.payloads import event_frame_payload
from openguild_proto.ws.frames import text_frame

PAGE_OVERHEAD_BYTES = 400  # measured: of a page beside its pieces
PIECE_OVERHEAD_BYTES = 120

Pieces = list[tuple[int, bytes]]
"""(last sequence in it, whole frames) for each piece of about `PIECE_BYTES`."""

_Key = tuple[str, "int | None", int]  # channel, epoch, after


class _Kept(NamedTuple):
    """A page and the bytes that it takes."""

    pieces: Pieces
    size: int


class _Reading:
    """A page that is being read. `waiting`: sockets that requested it meanwhile; `pieces`: the part that was cached before."""

    __slots__ = ("pieces", "waiting")

    def __init__(self, pieces: Pieces) -> None:
        self.pieces = pieces
        self.waiting: dict[Any, None] = {}


class Pages:
    """`get` returns the frames after a sequence; an empty page: the log cannot be read, or the channel is gone."""

    def __init__(self, outputs: Outputs, kept_bytes: int = KEPT_PAGE_BYTES) -> None:
        self._outputs = outputs
        self._kept_bytes = kept_bytes
        self._kept: OrderedDict[_Key, _Kept] = OrderedDict()  # the least recently used one first
        self._reading: dict[_Key, _Reading] = {}
        self._waiting: dict[Any, _Reading] = {}  # by socket
        self._unreadable: dict[Any, None] = {}  # sockets whose page could not be read
        self._bytes = 0

    def get(self, channel_id: str, epoch: int | None, after: int, count: int, socket: Any) -> Pieces | None:
        """Return up to `count` events after sequence `after`. None: they are being read; a `Replay` of `socket` follows.

        `epoch`: that of the log. Pages of the old log may still be cached when another replica renews the epochs.

        A page that was cached when the log was shorter is extended; if that fails, the cached part is returned.
        """
        key = (channel_id, epoch, after)
        kept = self._kept.get(key)
        pieces = kept.pieces if kept is not None else []
        if socket in self._unreadable:
            del self._unreadable[socket]
            return pieces
        if pieces and pieces[-1][0] - after >= count:
            self._kept.move_to_end(key)
            return pieces
        reading = self._reading.get(key)
        if reading is None:
            reading = self._reading[key] = _Reading(pieces)
            self._outputs.procedures.start(self._read(key, reading, count), "reading a page for a replay")
        reading.waiting[socket] = None
        self._waiting[socket] = reading
        return None

    def _read(self, key: _Key, reading: _Reading, count: int) -> Procedure[None]:
        channel_id, _, after = key
        begin = reading.pieces[-1][0] if reading.pieces else after
        more: Pieces = []
        try:
            events = yield from ReadEvents(log_id=channel_id, after=begin, limit=after + count - begin)
            more = in_pieces(events or ())
        except StorageUnavailable:
            self._outputs.log(Level.WARNING, "a replay was cut short: the log cannot be read", channel_id=channel_id)
        finally:
            is_wanted = self._reading.get(key) is reading  # else it was dropped meanwhile: this may be of another log
            if is_wanted:
                del self._reading[key]
                if more:
                    self._keep(key, _joined(reading.pieces, more))
            self._tell_waiting(reading, unreadable=is_wanted and not more)

    def _tell_waiting(self, reading: _Reading, *, unreadable: bool) -> None:
        for socket in reading.waiting:
            self._waiting.pop(socket, None)
            if unreadable:
                self._unreadable[socket] = None
            self._outputs.add(Replay(socket))

    def _keep(self, key: _Key, pieces: Pieces) -> None:
        self._forget(key)
        size = PAGE_OVERHEAD_BYTES + sum(PIECE_OVERHEAD_BYTES + len(piece) for _, piece in pieces)
        self._kept[key] = _Kept(pieces, size)
        self._bytes += size
        while self._bytes > self._kept_bytes and len(self._kept) > 1:
            self._forget(next(iter(self._kept)))

    def _forget(self, key: _Key) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self._bytes -= kept.size

    def left(self, socket: Any) -> None:
        """The socket is gone: drop its state, and end its wait."""
        self._unreadable.pop(socket, None)
        reading = self._waiting.pop(socket, None)
        if reading is not None:
            del reading.waiting[socket]
            self._outputs.add(Replay(socket))

    def drop_channel(self, channel_id: str) -> None:
        """Drop the cached pages of this channel."""
        for key in [key for key in self._kept if key[0] == channel_id]:
            self._forget(key)
        for key in [key for key in self._reading if key[0] == channel_id]:
            del self._reading[key]

    def drop_all(self) -> None:
        """Drop all pages: the logs have restarted."""
        self._kept.clear()
        self._reading.clear()
        self._bytes = 0

    @property
    def nbytes(self) -> int:
        """The number of cached bytes, including the overhead of the pages."""
        return self._bytes


def _joined(pieces: Pieces, more: Pieces) -> Pieces:
    """Return a new list, because a socket may be reading the old one."""
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
