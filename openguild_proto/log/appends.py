"""The queue of appends: chooses those of the next transaction, and refuses some.

One transaction stores a batch. Channels take turns in round-robin order, so a busy channel does not delay the others; within
a channel appends keep their order. A channel or an author whose row is locked is refused for a moment, then tried alone.
"""

from __future__ import annotations

from collections import deque
from typing import TypeVar

from openguild_proto.effects.channels import AppendEvent
from openguild_proto.limits import (
    APPEND_OVERHEAD_BYTES,
    BLOCKED_SECS,
    MAX_BATCH_BYTES,
    MAX_BATCH_ITEMS,
    MAX_BLOCKED,
    MAX_QUEUE_BYTES,
    MAX_QUEUE_EVENTS,
)
from openguild_proto.policy.batches import BatchQueue, Waiting

Ticket = TypeVar("Ticket")


class _Blocked(dict[str, float]):
    """Keys that are refused until a time, and are suspect from then on. Keeps the newest MAX_BLOCKED."""

    __slots__ = ()

    def block(self, key: str, until: float) -> None:
        self.pop(key, None)
        self[key] = until
        while len(self) > MAX_BLOCKED:
            del self[next(iter(self))]

    def refuses(self, key: str, now: float) -> bool:
        return now < self.get(key, now)


class AppendQueue(BatchQueue[AppendEvent, Ticket]):
    """The queue. Call `offer`; `take` a batch, store it, call `stored`, `block_channel` or `block_author`, and take the next one.

    The appends of a batch differ in nonce and event id. A repeat waits for the next batch, where it is found stored.
    `share`: the number of queues that share the bounds. `blocked_secs`: for which a locked channel or author is refused.
    """

    def __init__(self, *, share: int = 1, blocked_secs: float = BLOCKED_SECS) -> None:
        super().__init__(max_items=MAX_QUEUE_EVENTS // share, max_bytes=MAX_QUEUE_BYTES // share)
        self.max_channel_events = self.max_items // 2  # leaves room for other channels
        self._blocked_secs = blocked_secs
        self._channels: dict[str, deque[Waiting[AppendEvent, Ticket]]] = {}  # in the order of their turns
        self._blocked_channels = _Blocked()
        self._blocked_authors = _Blocked()

    def offer(self, item: AppendEvent, ticket: Ticket, now: float) -> bool:
        """Queue an append. Return False, with nothing changed, at a bound of the queue or the channel, or if it is blocked."""
        channel_id = item.channel_id
        size = len(item.wire) + APPEND_OVERHEAD_BYTES
        if self._items >= self.max_items or self.bytes + size > self.max_bytes:
            return False
        if self._blocked_channels and self._blocked_channels.refuses(channel_id, now):
            return False
        if self._blocked_authors and self._blocked_authors.refuses(_author_of(item), now):
            return False
        line = self._channels.get(channel_id)
        if line is None:
            line = self._channels[channel_id] = deque()
        elif len(line) >= self.max_channel_events:
            return False
        line.append(Waiting(item, size, ticket))
        self._items += 1
        self.bytes += size
        return True

    def take(self) -> list[Waiting[AppendEvent, Ticket]]:
        """Remove and return the next batch: one append of each channel in turn, until it is full."""
        batch: list[Waiting[AppendEvent, Ticket]] = []
        taken: set[tuple[str, str, str] | str] = set()
        size = 0
        channels, turns = self._channels, self._turns()
        while turns and len(batch) < MAX_BATCH_ITEMS and size < MAX_BATCH_BYTES:
            channel_id = turns.popleft()
            line = channels.pop(channel_id)
            waiting = line[0]
            append = waiting.item
            nonce = None if append.nonce is None else (channel_id, append.sender_id, append.nonce)
            is_suspect = bool(self._blocked_authors) and _author_of(append) in self._blocked_authors
            if append.event_id in taken or nonce in taken or (is_suspect and batch):
                channels[channel_id] = line  # this channel waits for the next batch
                continue
            line.popleft()
            taken.add(append.event_id)
            if nonce is not None:
                taken.add(nonce)
            batch.append(waiting)
            size += waiting.size
            if line:
                channels[channel_id] = line  # after the channels that have not had a turn
                turns.append(channel_id)
            if is_suspect:
                break
        self._items -= len(batch)
        self.bytes -= size
        return batch

    def _turns(self) -> deque[str]:
        """Return the channels of the next batch: one suspect channel alone, or all before the next suspect one."""
        if not self._blocked_channels and not self._blocked_authors:
            return deque(self._channels)
        turns: deque[str] = deque()
        for channel_id, line in self._channels.items():
            if self.suspects(line[0].item):
                return turns or deque([channel_id])
            turns.append(channel_id)
        return turns

    # --- locked channels and authors -----------------------------------------------------------------

    def block_channel(self, channel_id: str, now: float) -> list[Waiting[AppendEvent, Ticket]]:
        """Refuse appends to this channel for `blocked_secs`; then it is suspect. Remove and return its queued appends."""
        self._blocked_channels.block(channel_id, now + self._blocked_secs)
        gone = list(self._channels.pop(channel_id, ()))
        self._remove(gone)
        return gone

    def block_author(self, user_id: str, now: float) -> list[Waiting[AppendEvent, Ticket]]:
        """Refuse appends of this user for `blocked_secs`; then they are suspect. Remove and return their queued appends."""
        self._blocked_authors.block(user_id, now + self._blocked_secs)
        gone: list[Waiting[AppendEvent, Ticket]] = []
        for channel_id, line in list(self._channels.items()):
            theirs = [waiting for waiting in line if _author_of(waiting.item) == user_id]
            if len(theirs) == len(line):
                del self._channels[channel_id]
            elif theirs:
                self._channels[channel_id] = deque(w for w in line if _author_of(w.item) != user_id)
            gone += theirs
        self._remove(gone)
        return gone

    def suspects(self, first: AppendEvent) -> bool:
        """Return whether the channel or author of a batch's first append was blocked and has stored nothing since."""
        return first.channel_id in self._blocked_channels or _author_of(first) in self._blocked_authors

    def stored(self, append: AppendEvent) -> None:
        """Record a stored append: its channel and author are no longer suspect."""
        self._blocked_channels.pop(append.channel_id, None)
        if self._blocked_authors:
            self._blocked_authors.pop(_author_of(append), None)


def _author_of(append: AppendEvent) -> str:
    """Return the id of the user whose row the append locks, or "" for none."""
    return append.author.user_id if append.author is not None else ""
