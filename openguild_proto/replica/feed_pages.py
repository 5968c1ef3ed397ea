"""Pages of logs for gateway sockets. A page is read once for all sockets that wait for it, and cached.

The cache is bounded in bytes. A page is dropped when an event in it is redacted or the log's epoch changes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, Protocol

from openguild_proto.effects.base import StorageUnavailable
from openguild_proto.effects.channels import ReadEvents
from openguild_proto.gateway.feeds import Feed
from openguild_proto.gateway.server import GatewayServer
from openguild_proto.limits import KEPT_PAGE_BYTES, PIECE_BYTES
from openguild_proto.log.log_names import log_id_in
from openguild_proto.procedures import Procedure
from openguild_proto.records import StoredEvent
from openguild_proto.replica.outputs import Outputs

_Key = tuple[Feed, int]  # feed, after


class PageReader(Protocol):
    """A socket that reads the log."""

    @property
    def server(self) -> GatewayServer:
        """Its protocol state machine."""

    def wake(self) -> None:
        """Process the state machine's actions soon."""


class FeedPages:
    """Reads and caches pages. `ask` answers through `GatewayServer.page`, at once or later."""

    def __init__(self, outputs: Outputs, kept_bytes: int = KEPT_PAGE_BYTES) -> None:
        self._outputs = outputs
        self._kept_bytes = kept_bytes
        self._kept: OrderedDict[_Key, bytes] = OrderedDict()  # least recently used first
        self._asking: dict[_Key, list[Any]] = {}  # sockets that wait for a page being read
        self._bytes = 0

    def ask(self, socket: PageReader, feed: Feed, after: int, limit: int) -> None:
        """Give the socket up to `limit` events of the feed's log after the sequence `after`, about `PIECE_BYTES` of them."""
        kept = self._kept.get((feed, after))
        if kept is not None:
            self._kept.move_to_end((feed, after))
            self._give(socket, feed, after, kept)
            return
        asking = self._asking.get((feed, after))
        if asking is None:
            self._asking[feed, after] = asking = []
            self._outputs.procedures.start(self._read(feed, after, limit, asking), "reading a page for the gateway")
        asking.append(socket)

    def _read(self, feed: Feed, after: int, limit: int, asking: list[Any]) -> Procedure[None]:
        """Read a page for the sockets in `asking`. `drop` disowns the list, because the result may contain redacted content."""
        log_id = log_id_in(feed.log)
        events: tuple[StoredEvent, ...] | None = None
        pages: list[tuple[int, bytes]] = []
        try:
            events = yield from ReadEvents(log_id=log_id, after=after, limit=limit)
            pages = _in_pages(feed, events or ())
        except StorageUnavailable:
            pass  # the socket retries later
        except Exception as failure:  # a bug: without an answer the socket would read no log again
            self._outputs.defect("reading a page for the gateway", failure)
        finally:
            is_known = self._asking.get((feed, after)) is asking
            if is_known:
                del self._asking[feed, after]
        if not is_known:
            return
        if pages:
            self._outputs.counters.replayed += len(events or ()) * len(asking)
        begin = after
        for last, page in pages:
            self._keep((feed, begin), page)
            begin = last
        for socket in asking:
            self._give(socket, feed, after, pages[0][1] if pages else b"")

    def _give(self, socket: PageReader, feed: Feed, after: int, page: bytes) -> None:
        socket.server.page(feed, after, [page] if page else [], self._outputs.procedures.now)
        socket.wake()

    def _keep(self, key: _Key, page: bytes) -> None:
        self._forget(key)
        self._kept[key] = page
        self._bytes += len(page)
        while self._bytes > self._kept_bytes and len(self._kept) > 1:
            _, oldest = self._kept.popitem(last=False)
            self._bytes -= len(oldest)

    def _forget(self, key: _Key) -> None:
        self._bytes -= len(self._kept.pop(key, b""))

    def drop(self, feed: Feed) -> None:
        """Drop the cached pages of this feed. Sockets that wait for one are told to ask again."""
        for key in [key for key in self._kept if key[0] is feed]:
            self._forget(key)
        for key in [key for key in self._asking if key[0] is feed]:
            for socket in self._asking.pop(key):
                self._give(socket, *key, b"")

    @property
    def nbytes(self) -> int:
        """Size of the cached pages in bytes."""
        return self._bytes

    @property
    def reading(self) -> int:
        """Number of pages being read."""
        return len(self._asking)


def _in_pages(feed: Feed, events: Iterable[StoredEvent]) -> list[tuple[int, bytes]]:
    """Join whole messages into pages of about `PIECE_BYTES`. Return each with the last sequence in it."""
    pages: list[tuple[int, bytes]] = []
    messages: list[bytes] = []
    size = last = 0
    for event in events:
        message = feed.encoding.event_message(feed.log, feed.epoch, event.sequence, event.wire)
        if messages and size + len(message) > PIECE_BYTES:
            pages.append((last, b"".join(messages)))
            messages, size = [], 0
        messages.append(message)
        size += len(message)
        last = event.sequence
    if messages:
        pages.append((last, b"".join(messages)))
    return pages
