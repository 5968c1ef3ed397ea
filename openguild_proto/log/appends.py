"""The turns of appends that wait to be stored: which of them go into the next transaction, and which are refused.

Appends that wait together are stored by one transaction. Channels take turns, so a busy one does not hold up the
others; within a channel appends keep their order. A channel whose row somebody holds is refused for a moment and then
tried alone.
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
    MAX_BLOCKED_CHANNELS,
    MAX_QUEUE_BYTES,
    MAX_QUEUE_EVENTS,
)
from openguild_proto.policy.batches import BatchQueue, Waiting

Ticket = TypeVar("Ticket")


class AppendQueue(BatchQueue[AppendEvent, Ticket]):
    """`offer` appends, `take` a batch, store it, and say of its channels `stored` or `block`; then take the next one.

    No two appends of a batch share a nonce or an event id: the later one waits for the next batch and finds the
    earlier one stored. `share`: how many queues divide the bounds among them.
    `blocked_secs`: how long a channel that somebody holds is refused.
    """

    def __init__(self, *, share: int = 1, blocked_secs: float = BLOCKED_SECS) -> None:
        super().__init__(max_items=MAX_QUEUE_EVENTS // share, max_bytes=MAX_QUEUE_BYTES // share)
        self.max_channel_events = self.max_items // 2  # so that one channel's flood leaves room for the others
        self._blocked_secs = blocked_secs
        self._channels: dict[str, deque[Waiting[AppendEvent, Ticket]]] = {}  # the next turn is the first one's
        self._blocked: dict[str, float] = {}  # channels that somebody else holds: refused until then, then suspect

    def offer(self, item: AppendEvent, ticket: Ticket, now: float) -> bool:
        """False, with nothing changed, at a bound of the queue or of the channel, and while the channel is blocked."""
        channel_id = item.channel_id
        size = len(item.wire) + APPEND_OVERHEAD_BYTES
        if self._items >= self.max_items or self.bytes + size > self.max_bytes:
            return False
        if self._blocked and now < self._blocked.get(channel_id, now):
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
        """One append of each channel in turn, until the batch is full."""
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
            if append.event_id in taken or nonce in taken:
                channels[channel_id] = line  # the rest of this channel waits for the next batch
                continue
            line.popleft()
            taken.add(append.event_id)
            if nonce is not None:
                taken.add(nonce)
            batch.append(waiting)
            size += waiting.size
            if line:
                channels[channel_id] = line  # behind those that have not had a turn
                turns.append(channel_id)
        self._items -= len(batch)
        self.bytes -= size
        return batch

    def _turns(self) -> deque[str]:
        """The channels of the next batch: a suspect one alone, or those before the next suspect one."""
        if not self._blocked:
            return deque(self._channels)
        turns: deque[str] = deque()
        for channel_id in self._channels:
            if channel_id in self._blocked:
                return turns or deque([channel_id])
            turns.append(channel_id)
        return turns

    # --- a channel whose row somebody holds --------------------------------------------------------

    def block(self, channel_id: str, now: float) -> list[Waiting[AppendEvent, Ticket]]:
        """Refuse for a moment what comes for this channel. After that it is suspect.

        Returns what waited for it, and waits no more.
        """
        self._blocked.pop(channel_id, None)
        self._blocked[channel_id] = now + self._blocked_secs
        while len(self._blocked) > MAX_BLOCKED_CHANNELS:
            del self._blocked[next(iter(self._blocked))]
        gone = list(self._channels.pop(channel_id, ()))
        self._remove(gone)
        return gone

    def suspects(self, channel_id: str) -> bool:
        """It was blocked and has stored nothing since: its next batch is its own, so that nobody waits with it."""
        return channel_id in self._blocked

    def stored(self, channel_id: str) -> None:
        """An append to it has been stored: it is not suspect."""
        self._blocked.pop(channel_id, None)
