"""Channel feeds: what this replica must hear, in order and once, whatever NATS does.

A feed exists while something local depends on a channel (a stream, or a notification stream of a member). It joins
three sources in one sequencer: this replica's own commits, NATS, and PostgreSQL, which is the truth. A hole that
does not close by itself within `GAP_GRACE_SECS` is read from the log; a jittered tail check (one query for all
feeds that heard nothing) finds a lost last message within `TAIL_CHECK_SECS`, jitter aside (architecture, "Many replicas").
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import anyio
import anyio.lowlevel
import structlog
from anyio.abc import TaskGroup

from openguild_proto.effects import ReadEvents, StorageUnavailable
from openguild_proto.log.sequencer import Sequencer
from openguild_proto.schemas.stream import event_frame_payload, payload_sequence
from openguild_runtime.bus.base import Bus
from openguild_runtime.observability.metrics import Metrics
from openguild_runtime.replica.epochs import Epochs
from openguild_runtime.storage.base import Storage
from openguild_runtime.system.background import contained, start_contained

GAP_GRACE_SECS = 0.05  # commits of one batch resume their posters in any order; NATS may overtake them
ROOM_LOOK_SECS = 0.02  # how often a crowded channel is looked at; a burst to 15,000 readers leaves in about 0.2
TAIL_CHECK_SECS = 2.0
PAGE_EVENTS = 200
TURN_CHANNELS = 200  # opened or let go between two turns of the loop: 5 to 20 ms

T = TypeVar("T")

log = structlog.get_logger("openguild.feeds")


class ChannelGone(Exception):
    """The channel that was to be followed has been deleted meanwhile."""


class Feed:
    """One channel as this replica hears it. Its sequencer begins when the log's head has been read."""

    __slots__ = ("asked", "backfilling", "channel_id", "gone", "heard", "holders", "opened", "sequencer")

    def __init__(self, channel_id: str) -> None:
        self.channel_id = channel_id
        self.holders = 0
        self.sequencer: Sequencer[bytes] = Sequencer()
        self.opened: anyio.Event | None = None  # set when the opening in progress has ended
        self.gone = False  # the log has no such channel
        self.heard = False  # NATS has brought something new since the last tail check
        self.asked = False  # the last tail check asked the log
        self.backfilling = False

    @property
    def head(self) -> int:
        """The newest sequence released."""
        return self.sequencer.head


class Feeds:
    """All feeds of this replica. `released(channel_id, sequence, payload)` is called in order, once per event.

    `restarted(channel_id)`: the channel's log is not the one that was released from, it went back. `has_room(channel_id)`:
    its readers can be given more at once; what comes while they cannot is read from the log when they can.
    """

    def __init__(
        self,
        storage: Storage,
        bus: Bus,
        metrics: Metrics,
        tasks: TaskGroup,
        *,
        epochs: Epochs,
        released: Callable[[str, int, bytes], None],
        restarted: Callable[[str], None],
        has_room: Callable[[str], bool],
    ) -> None:
        self._storage = storage
        self._bus = bus
        self._metrics = metrics
        self._tasks = tasks
        self._released = released
        self._feeds: dict[str, Feed] = {}
        self._epochs = epochs
        self._restarted = restarted
        self._restarts = 0  # of all feeds
        self._has_room = has_room

    def get(self, channel_id: str) -> Feed | None:
        """The channel's feed where something local depends on it."""
        return self._feeds.get(channel_id)

    # --- holding -----------------------------------------------------------------------------------

    async def hold(self, channel_ids: Sequence[str]) -> set[str]:
        """Open the feeds that are not open yet, with one query for all heads. Raises StorageUnavailable.

        Returns the channels that are held: not those that have been deleted since somebody read of them.
        NATS is subscribed to before the head is read, so nothing falls between the two.
        """
        feeds = [self._feeds.setdefault(channel_id, Feed(channel_id)) for channel_id in channel_ids]
        for feed in feeds:
            feed.holders += 1
        mine = [feed for feed in feeds if not feed.sequencer.begun and feed.opened is None]
        try:
            if mine:
                await self._open(mine)
            for feed in feeds:
                if feed.opened is not None:
                    await feed.opened.wait()
                if not feed.sequencer.begun and not feed.gone:
                    raise StorageUnavailable
        except BaseException:
            self._let_go(feeds)
            raise
        self._let_go([feed for feed in feeds if feed.gone])
        return {feed.channel_id for feed in feeds if not feed.gone}

    async def _open(self, feeds: list[Feed]) -> None:
        for feed in feeds:
            feed.opened = anyio.Event()
        try:
            for some in batched(feeds):
                for feed in some:
                    await self._bus.subscribe_channel(feed.channel_id)
                await anyio.lowlevel.checkpoint()
            restarts = -1
            while restarts != self._restarts:  # heads of the log before would be believed for ever
                restarts = self._restarts
                heads = await self._storage.heads([feed.channel_id for feed in feeds])
            for some in batched(feeds):
                for feed in some:
                    feed.gone = feed.channel_id not in heads
                    if not feed.gone:
                        self._release(feed, feed.sequencer.begin(heads[feed.channel_id]))
                await anyio.lowlevel.checkpoint()
        finally:
            for feed in feeds:
                if feed.opened is not None:
                    feed.opened.set()
                    feed.opened = None

    def hold_new(self, channel_id: str) -> None:
        """A channel that was created just now: it is followed from its first event on, whenever the log is read."""
        feed = self._feeds.get(channel_id)
        if feed is None:
            feed = self._feeds[channel_id] = Feed(channel_id)
            feed.sequencer.begin(0)
            start_contained(self._tasks, self._follow_new, feed)
        feed.holders += 1

    async def _follow_new(self, feed: Feed) -> None:
        await self._bus.subscribe_channel(feed.channel_id)
        try:
            heads = await self._storage.heads([feed.channel_id])
        except StorageUnavailable:
            log.info("a new channel waits for its tail check", channel_id=feed.channel_id)
            return
        feed.sequencer.saw_head(heads.get(feed.channel_id, 0))
        self._schedule_backfill(feed)

    def release(self, channel_ids: Iterable[str]) -> None:
        """Undo one `hold` of each channel: in the background, so that the end of a wide stream holds nobody up."""
        self._let_go([feed for channel_id in channel_ids if (feed := self._feeds.get(channel_id)) is not None])

    def _let_go(self, feeds: Sequence[Feed]) -> None:
        unheld = []
        for feed in feeds:
            feed.holders -= 1
            if feed.holders == 0 and self._feeds.get(feed.channel_id) is feed:
                del self._feeds[feed.channel_id]
                unheld.append(feed.channel_id)
        if unheld:
            start_contained(self._tasks, self._unsubscribe, unheld)

    async def _unsubscribe(self, channel_ids: Sequence[str]) -> None:
        for some in batched(channel_ids):
            for channel_id in some:
                if channel_id not in self._feeds:  # nobody has taken it up again meanwhile
                    await self._bus.unsubscribe_channel(channel_id)
            await anyio.lowlevel.checkpoint()

    # --- what arrives ------------------------------------------------------------------------------

    def committed(self, channel_id: str, sequence: int, payload: bytes) -> bool:
        """An event this replica stored. False: nothing local depends on its channel."""
        feed = self._feeds.get(channel_id)
        if feed is None:
            return False
        self._take(feed, sequence, payload)
        return True

    def received(self, channel_id: str, payload: bytes) -> None:
        """An event from NATS; own echoes and repeats are dropped by their sequence."""
        feed = self._feeds.get(channel_id)
        if feed is not None:
            sequence = payload_sequence(payload)
            feed.heard = feed.heard or sequence > feed.head  # a repeat proves nothing, nor does what was stored here
            self._take(feed, sequence, payload)

    def _take(self, feed: Feed, sequence: int, payload: bytes) -> None:
        if self._has_room(feed.channel_id):
            self._release(feed, feed.sequencer.offer(sequence, payload, len(payload)))
        else:
            feed.sequencer.saw_head(sequence)
            self._schedule_backfill(feed)

    def _release(self, feed: Feed, events: list[tuple[int, bytes]]) -> None:
        self._deliver(feed, events)
        self._schedule_backfill(feed)

    def _deliver(self, feed: Feed, events: list[tuple[int, bytes]]) -> None:
        if self._is_current(feed):
            for sequence, payload in events:
                self._released(feed.channel_id, sequence, payload)

    def _is_current(self, feed: Feed) -> bool:
        """False: it was let go while somebody waited for the log, and perhaps the channel has another one by now."""
        return self._feeds.get(feed.channel_id) is feed

    # --- holes -------------------------------------------------------------------------------------

    def _schedule_backfill(self, feed: Feed) -> None:
        if feed.sequencer.missing() is not None and not feed.backfilling:
            feed.backfilling = True
            start_contained(self._tasks, self._backfill_after_grace, feed)

    async def _backfill_after_grace(self, feed: Feed) -> None:
        try:
            await anyio.sleep(GAP_GRACE_SECS)
            await self.backfill(feed)
        except StorageUnavailable:
            log.warning("a gap cannot be read from the log yet", channel_id=feed.channel_id)
        finally:
            feed.backfilling = False

    async def backfill(self, feed: Feed) -> None:
        """Read what is missing from the log until nothing is. Raises StorageUnavailable; the tail check tries again."""
        sequencer = feed.sequencer
        while feed.holders > 0 and (hole := sequencer.missing()) is not None:
            if not self._has_room(feed.channel_id):
                await anyio.sleep(ROOM_LOOK_SECS)
                continue
            after, before = hole
            self._metrics.gap_found()
            page = await self._storage.perform(
                ReadEvents(channel_id=feed.channel_id, after=after, limit=min(PAGE_EVENTS, before - after - 1))
            )
            if not page:
                return  # the channel is gone; its control message closes the streams
            if sequencer.head != after:
                continue  # what was missing came meanwhile, or the log went back
            for event in page:
                self._deliver(feed, sequencer.offer(event.sequence, event_frame_payload(event)))
            self._metrics.gap_backfilled(len(page))

    async def catch_up(self, channel_id: str, head: int) -> None:
        """Make the feed of a held channel know at least the log up to `head`."""
        feed = self._feeds.get(channel_id)
        if feed is not None and feed.sequencer.begun and feed.head < head:
            feed.sequencer.saw_head(head)
            await self.backfill(feed)

    # --- tail check --------------------------------------------------------------------------------

    async def check_tails(self, *, everything: bool = False) -> None:
        """Compare heads with the log: of feeds that heard nothing since the last check, or of all (after a NATS reconnect).

        None is asked about at two checks in a row, so two of them are the time a lost last message may take: what comes
        before it puts its feed off by one check, and the next one finds it.
        """
        deaf = not self._bus.connected
        silent = []
        for feed in self._feeds.values():
            quiet = not feed.asked and (deaf or not feed.heard)
            feed.asked = feed.sequencer.begun and (everything or quiet)
            feed.heard = False
            if feed.asked:
                silent.append(feed)
        if not silent:
            return
        released = {feed: feed.head for feed in silent}
        heads = await self._storage.heads([feed.channel_id for feed in silent])
        short: dict[Feed, int] = {}
        for feed, known in released.items():
            head = heads.get(feed.channel_id, known)  # a channel that is gone: its control message closes the streams
            if head > feed.head:
                feed.sequencer.saw_head(head)
                self._schedule_backfill(feed)
            elif head < known:
                short[feed] = head
        if short:
            again = await self._storage.heads([feed.channel_id for feed in short])
            for feed, head in short.items():
                second = again.get(feed.channel_id)
                if second is not None and feed.sequencer.went_back(released[feed], head, second):
                    await self._epochs.went_back(f"the log of channel {feed.channel_id} went back to {second}")
                    if feed.sequencer.went_back(released[feed], head, second):  # of a store that has no history
                        log.error("the log of a channel went back: its streams begin anew", channel_id=feed.channel_id)
                        self._restart(feed, second)

    async def restart_all(self) -> None:
        """Every channel has another log: what has been released begins anew. Raises StorageUnavailable."""
        self._restarts += 1
        for some in batched([feed for feed in self._feeds.values() if feed.sequencer.begun]):
            heads = await self._storage.heads([feed.channel_id for feed in some])
            for feed in some:
                self._restart(feed, heads.get(feed.channel_id, 0))

    def _restart(self, feed: Feed, head: int) -> None:
        """Sequences that were sent mean something else from now on, so the channel's streams cannot go on."""
        if not self._is_current(feed):
            return
        if feed.head == 0:  # nothing was sent that could mean something else, and the tail check finds what there is
            feed.sequencer.restart(0)
            return
        feed.sequencer.restart(head)
        self._restarted(feed.channel_id)

    async def check_now(self, also: Callable[[], Awaitable[None]]) -> None:
        """Every tail at once, and `also`: something may have been lost for all of them."""
        await self._check(also, everything=True)

    async def run_tail_checks(self, also: Callable[[], Awaitable[None]]) -> None:
        """For ever: two jittered checks in each `TAIL_CHECK_SECS`; `also` (the control log's tail) with every other one."""
        for number in itertools.count():
            await anyio.sleep(TAIL_CHECK_SECS / 2 * random.uniform(0.75, 1.25))  # noqa: S311 - jitter, not a secret
            await self._check(also if number % 2 else None)

    async def _check(self, also: Callable[[], Awaitable[None]] | None, *, everything: bool = False) -> None:
        with contained("check of the epochs", StorageUnavailable):
            await self._epochs.check()
        with contained("tail check", StorageUnavailable):
            await self.check_tails(everything=everything)
        if also is not None:
            with contained("tail check of the control log", StorageUnavailable):
                await also()


def batched(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """Pieces of what one turn of the loop may take."""
    return (items[start : start + TURN_CHANNELS] for start in range(0, len(items), TURN_CHANNELS))
