"""Group commit: appends that wait together are stored by one transaction (PROTOCOL 7.1.2).

Channels take turns, so a busy one does not hold up the others; within a channel appends keep their order. The queue is
bounded in events and bytes, and in events per channel; beyond it an append is refused, not kept.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TypeAlias

from openguild_proto.effects import Appended, AppendEvent, AppendFailure, Overloaded
from openguild_runtime.storage.postgres.batcher import MAX_BATCH_BYTES, MAX_BATCH_ITEMS, Batcher, Perform, Waiting

Append: TypeAlias = Waiting[AppendEvent, Appended | AppendFailure]
Outcome: TypeAlias = Appended | AppendFailure | Exception
Commit: TypeAlias = Perform[AppendEvent, Appended | AppendFailure]

MAX_QUEUE_EVENTS = 8_192
MAX_QUEUE_BYTES = 32 * 1024 * 1024
OVERHEAD_BYTES = 512  # of a waiting append, beside its two texts
BLOCKED_SECS = 1.0  # what an `overloaded` client is told to wait
MAX_BLOCKED = 1_024  # remembered; the oldest are forgotten first, and then cost one batch its patience again


class CommitQueue(Batcher[AppendEvent, Appended | AppendFailure]):
    """`commit(effects)` stores a batch in one transaction and returns one outcome for each, in order.

    No two effects of a batch share a nonce or an event id: the later one waits for the next batch and finds the
    earlier one stored. `share`: how many queues divide the bounds among them.
    `blocked_secs`: how long a channel that somebody holds is refused.
    """

    def __init__(self, commit: Commit, *, share: int = 1, blocked_secs: float = BLOCKED_SECS) -> None:
        super().__init__(commit, max_items=MAX_QUEUE_EVENTS // share, max_bytes=MAX_QUEUE_BYTES // share)
        self._channels: dict[str, deque[Append]] = {}  # the next turn is the first one's
        self._max_channel_events = self._max_items // 2  # so that one channel's flood leaves room for the others
        self._blocked_secs = blocked_secs
        self._blocked: dict[str, float] = {}  # channels that somebody else holds: refused until then, then suspect

    # --- a channel whose row somebody holds --------------------------------------------------------

    def block(self, channel_id: str) -> None:
        """Refuse what waits for this channel, and for a moment what comes. After that it is suspect."""
        self._blocked.pop(channel_id, None)
        self._blocked[channel_id] = time.monotonic() + self._blocked_secs
        while len(self._blocked) > MAX_BLOCKED:
            del self._blocked[next(iter(self._blocked))]
        line = self._channels.pop(channel_id, deque())
        self._let_go(line)
        for waiting in line:
            waiting.settle(Overloaded())

    def suspects(self, channel_id: str) -> bool:
        """It was blocked and has stored nothing since: its next batch is its own, so that nobody waits with it."""
        return channel_id in self._blocked

    def trust(self, channel_id: str) -> None:
        """An append to it has been stored."""
        self._blocked.pop(channel_id, None)

    # --- turns -------------------------------------------------------------------------------------

    def _size(self, item: AppendEvent) -> int:
        return len(item.canonical) + len(item.wire) + OVERHEAD_BYTES

    def _put(self, waiting: Append) -> None:
        channel_id = waiting.item.channel_id
        if channel_id in self._blocked and time.monotonic() < self._blocked[channel_id]:
            raise Overloaded
        line = self._channels.get(channel_id)
        if line is None:
            line = self._channels[channel_id] = deque()
        elif len(line) >= self._max_channel_events:
            raise Overloaded
        line.append(waiting)

    def _take(self) -> list[Append]:
        """One append of each channel in turn, until the batch is full."""
        batch: list[Append] = []
        taken: set[tuple[str, str, str] | str] = set()
        size = 0
        turns = self._turns()
        while turns and len(batch) < MAX_BATCH_ITEMS and size < MAX_BATCH_BYTES:
            channel_id = turns.popleft()
            line = self._channels.pop(channel_id)
            waiting = line[0]
            effect = waiting.item
            names: set[tuple[str, str, str] | str] = {effect.event_id}
            if effect.nonce is not None:
                names.add((channel_id, effect.sender_id, effect.nonce))
            if names & taken:
                self._channels[channel_id] = line  # the rest of this channel waits for the next batch
                continue
            line.popleft()
            taken |= names
            batch.append(waiting)
            size += waiting.size
            if line:
                self._channels[channel_id] = line  # behind those that have not had a turn
                turns.append(channel_id)
        return batch

    def _turns(self) -> deque[str]:
        """The channels of the next batch: a suspect one alone, or those before the next suspect one."""
        if not self._blocked:
            return deque(self._channels)
        turns: deque[str] = deque()
        for channel_id in self._channels:
            if self.suspects(channel_id):
                return turns or deque([channel_id])
            turns.append(channel_id)
        return turns
