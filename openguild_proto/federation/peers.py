"""A replica's short-lived cache of other servers, so that not every request reads them from the store."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

from openguild_proto.effects.federation import Peer

FRESH_SECS = 1.0  # a decision of the operator applies on every replica after that
RETRY_SECS = 60.0  # PROTOCOL 16.3.6: between two attempts to read the keys of a server
FIRST_RETRY_SECS = 5.0  # PROTOCOL 16.3.6: after a failed attempt; doubled each time
REFRESH_MS = 3_600_000  # PROTOCOL 16.3.6: after which the keys of a server are read again
CONTACT_MS = 60_000  # ours: between two records of contact
MEGABYTE = 1024 * 1024
MAX_KNOWN = 1_024  # ours: servers; the least recently used one is evicted


class KnownPeers:
    """Recently read rows of peers, and the last attempts to read the keys of servers."""

    __slots__ = ("_bytes", "_peers", "_tried", "_under_way")

    def __init__(self) -> None:
        self._peers: OrderedDict[str, tuple[float, Peer | None]] = OrderedDict()
        self._bytes: OrderedDict[str, int] = OrderedDict()  # of each server since its last complete megabyte
        self._tried: OrderedDict[str, tuple[float, float]] = OrderedDict()  # when, and how long to wait from then on
        self._under_way: dict[str, int] = {}  # servers whose keys are being read: number of readers

    def has(self, server: str, now: float) -> bool:
        """Return whether `get` may be used instead of the store."""
        found = self._peers.get(server)
        return found is not None and now - found[0] < FRESH_SECS

    def get(self, server: str) -> Peer | None:
        """Return the row that was put last."""
        return self._peers[server][1]

    def put(self, server: str, peer: Peer | None, now: float) -> None:
        """Remember a row of the store."""
        self._peers[server] = (now, peer)
        self._peers.move_to_end(server)
        if len(self._peers) > MAX_KNOWN:
            self._peers.popitem(last=False)

    def count_bytes(self, server: str, nbytes: int) -> int:
        """Count bytes of a server, and return how many further megabytes are now complete."""
        full, self._bytes[server] = divmod(self._bytes.pop(server, 0) + nbytes, MEGABYTE)
        if len(self._bytes) > MAX_KNOWN:
            self._bytes.popitem(last=False)
        return full

    def drop(self, server: str) -> None:
        """Forget a server, because its row has changed."""
        self._peers.pop(server, None)

    def retry(self, server: str) -> None:
        """Allow the keys and the row of a server to be read again at once."""
        self._tried.pop(server, None)
        self.drop(server)

    def may_try(self, server: str, now: float) -> bool:
        """Return whether its keys may be read now, or are being read, and record the attempt."""
        if self.is_trying(server):
            return True
        tried, wait_secs = self._tried.get(server, (now, 0.0))
        if now - tried < wait_secs:
            return False
        self._tried[server] = (now, wait_secs)
        self._tried.move_to_end(server)
        if len(self._tried) > MAX_KNOWN:
            self._tried.popitem(last=False)
        return True

    def is_trying(self, server: str) -> bool:
        """Return whether its keys are being read. All callers wait for the same result."""
        return server in self._under_way

    @contextmanager
    def trying(self, server: str) -> Iterator[None]:
        """Read the server's keys in this context. An exception delays the next attempt."""
        self._under_way[server] = self._under_way.get(server, 0) + 1
        failed = True
        try:
            yield
            failed = False
        finally:
            at, wait_secs = self._tried.get(server, (0.0, 0.0))
            longer = min(RETRY_SECS, max(FIRST_RETRY_SECS, 2 * wait_secs))
            if server in self._tried and self._under_way[server] == 1:
                self._tried[server] = (at, longer if failed else RETRY_SECS)
            self._under_way[server] -= 1
            if not self._under_way[server]:
                del self._under_way[server]
