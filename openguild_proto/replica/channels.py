"""The channels that a replica follows. Each is followed once, in order, while something local depends on it.

A channel is held by its streams and by the notification streams of the users who can see it. It is followed until the last of
them ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set
from typing import Protocol, TypeVar

from openguild_proto.effects.base import StorageUnavailable
from openguild_proto.effects.channels import ReadEvents
from openguild_proto.effects.replica import ReadHeads, SubscribeChannels, UnsubscribeChannels
from openguild_proto.limits import MAX_CHANNELS_AT_ONCE, PAGE_EVENTS
from openguild_proto.log.follower import Item, LogFollower, TailCheck
from openguild_proto.procedures import Procedure, Signal, Sleep
from openguild_proto.records import Head
from openguild_proto.replica.actions import Level
from openguild_proto.replica.epochs import Epochs
from openguild_proto.replica.outputs import Outputs
from openguild_proto.schemas.payloads import event_frame_payload, payload_sequence

T = TypeVar("T")


class ChannelGone(Exception):
    """The channel to follow was deleted."""


class _Opening:
    """Channels that are being opened, shared by all callers that need one of them.

    If the follower has not begun afterwards and `failed` is False, the caller that was opening them has left.
    """

    __slots__ = ("ended", "failed")

    def __init__(self, ended: Signal) -> None:
        self.ended = ended
        self.failed = False


class ChannelFeed:
    """One followed channel, and the source of its follower."""

    __slots__ = ("base", "channel_id", "channels", "checking", "epoch", "follower", "gone", "holders", "opening")

    def __init__(self, channels: Channels, channel_id: str) -> None:
        self.channels = channels
        self.channel_id = channel_id
        self.checking: Signal | None = None  # set while the history is read for streams of another epoch
        self.epoch: int | None = None  # of the log that is released; None: not known yet
        self.base = 0  # a mirrored log begins here after this sequence
        self.holders = 0
        self.opening: _Opening | None = None  # while it is being opened
        self.gone = False  # the store has no such channel
        self.follower: LogFollower[bytes] = LogFollower(self, channels.outputs.procedures)

    @property
    def head(self) -> int:
        """The newest released sequence."""
        return self.follower.head

    def saw(self, head: Head | None) -> None:
        """Record the head of a channel that was followed from its first event on. None: the channel is gone."""
        if head is not None:
            self.epoch = head.epoch if self.epoch is None else self.epoch
            self.follower.saw_head(head.sequence)

    # --- source of the follower ----------------------------------------------------------------------

    def read(self, after: int, before: int) -> Procedure[Sequence[Item[bytes]]]:
        """Read a page of the channel's log as frame payloads."""
        self.channels.outputs.counters.gaps += 1
        limit = min(PAGE_EVENTS, before - after - 1)
        events = yield from ReadEvents(log_id=self.channel_id, after=after, limit=limit)
        return [Item(event.sequence, event_frame_payload(event)) for event in events or ()]

    def release(self, sequence: int, payload: bytes) -> None:
        """Release the event to the channel's subscribers, unless another feed has replaced this one."""
        if self.is_current:
            self.channels.handler.release(self.channel_id, sequence, payload)

    def has_room(self) -> bool:
        """Return whether the channel's readers can accept more events now."""
        return self.channels.handler.has_room(self.channel_id)

    def is_followed(self) -> bool:
        """Return whether anything local depends on the channel."""
        return self.holders > 0

    def truncated(self, first: int | None) -> int | None:
        """Return None: the channel is gone, and its control record closes the streams."""
        del first
        return None

    def counted(self, items: int) -> None:
        """Count the events read to fill a gap."""
        self.channels.outputs.counters.backfilled += items

    @property
    def is_current(self) -> bool:
        """Whether this is the channel's current feed."""
        return self.channels.get(self.channel_id) is self


class ChannelHandler(Protocol):
    """The callbacks of the feeds' owner."""

    def release(self, channel_id: str, sequence: int, payload: bytes) -> None:
        """Handle the next event of a channel. Events come in order and once."""

    def restarted(self, channel_id: str) -> None:
        """Handle that the channel's log was replaced: the released sequences no longer apply."""

    def unfollowed(self, channel_id: str) -> None:
        """Handle that nothing local depends on the channel any more: its events are no longer released."""

    def has_room(self, channel_id: str) -> bool:
        """Return whether the channel's readers can accept more events. Events that arrive meanwhile are read from the log later."""


class Channels:
    """The feeds of a replica."""

    def __init__(self, outputs: Outputs, epochs: Epochs, handler: ChannelHandler) -> None:
        self.outputs = outputs
        self.handler = handler
        self._epochs = epochs
        self._feeds: dict[str, ChannelFeed] = {}
        self._restarts = 0  # how often `restart_all` was called
        self._left: dict[str, None] = {}  # channels without a feed that are still subscribed on the bus

    def get(self, channel_id: str) -> ChannelFeed | None:
        """Return the channel's feed, or None if nothing local depends on it."""
        return self._feeds.get(channel_id)

    # --- holding -------------------------------------------------------------------------------------

    def follow(self, channel_ids: Sequence[str]) -> Procedure[Set[str]]:
        """Follow these channels, reading the unknown heads in one query. Raises StorageUnavailable.

        Return the ids of the channels that are held now, without those that have been deleted. Subscribes on the bus before
        it reads the heads, so that no event is missed in between.
        """
        feeds = [self._feeds.setdefault(channel_id, ChannelFeed(self, channel_id)) for channel_id in channel_ids]
        for feed in feeds:
            feed.holders += 1
        try:
            yield from self._be_open(feeds)
        except BaseException:
            self._unfollow(feeds)
            raise
        self._unfollow([feed for feed in feeds if feed.gone])
        return dict.fromkeys(feed.channel_id for feed in feeds if not feed.gone).keys()

    def _be_open(self, feeds: Sequence[ChannelFeed]) -> Procedure[None]:
        """Open the feeds that nobody else is opening, and wait for the others."""
        while closed := [feed for feed in feeds if not feed.follower.begun and not feed.gone]:
            mine = [feed for feed in closed if feed.opening is None]
            if mine:
                yield from self._open(mine)
            for feed in closed:
                if (opening := feed.opening) is not None:
                    yield from opening.ended.wait()
                    if opening.failed and not feed.follower.begun:
                        raise StorageUnavailable

    def _open(self, feeds: Sequence[ChannelFeed]) -> Procedure[None]:
        opening = _Opening(Signal(self.outputs.procedures))
        for feed in feeds:
            feed.opening = opening
        try:
            yield from self._subscribe_and_begin(feeds)
        except Exception:
            opening.failed = True
            raise
        finally:
            for feed in feeds:
                feed.opening = None
            opening.ended.set()

    def _subscribe_and_begin(self, feeds: Sequence[ChannelFeed]) -> Procedure[None]:
        for some in batched(feeds):
            yield from SubscribeChannels(tuple(feed.channel_id for feed in some))
        restarts = -1
        heads: dict[str, Head] = {}
        while restarts != self._restarts:  # heads from before a restart would never be corrected
            restarts = self._restarts
            heads = yield from ReadHeads(tuple(feed.channel_id for feed in feeds))
        for some in batched(feeds):
            for feed in some:
                head = heads.get(feed.channel_id)
                if feed.follower.begun:  # a new channel, followed from its first event on
                    feed.saw(head)
                elif head is not None:
                    feed.epoch = head.epoch
                    feed.follower.begin(head.sequence)
                else:
                    feed.gone = True
            yield from Sleep(0).wait()  # lets other work run

    def follow_new(self, channel_id: str) -> None:
        """Follow a channel that was just created, from its first event on."""
        feed = self._feeds.setdefault(channel_id, ChannelFeed(self, channel_id))
        if not feed.follower.begun:  # also if a stream is opening it, whether that succeeds or not
            feed.follower.begin(0)
            self.outputs.procedures.start(self._subscribe_new(feed), "following a new channel")
        feed.holders += 1

    def _subscribe_new(self, feed: ChannelFeed) -> Procedure[None]:
        yield from SubscribeChannels((feed.channel_id,))
        heads = yield from ReadHeads((feed.channel_id,))  # if this fails, the tail check finds missed events
        feed.saw(heads.get(feed.channel_id))

    def unfollow(self, channel_ids: Iterable[str]) -> None:
        """Undo one `follow` of each channel."""
        self._unfollow([feed for channel_id in channel_ids if (feed := self._feeds.get(channel_id)) is not None])

    def _unfollow(self, feeds: Sequence[ChannelFeed]) -> None:
        was_idle = not self._left
        for feed in feeds:
            feed.holders -= 1
            if feed.holders == 0 and feed.is_current:
                del self._feeds[feed.channel_id]
                self.handler.unfollowed(feed.channel_id)
                self._left[feed.channel_id] = None
        if was_idle and self._left:
            self.outputs.procedures.start(self._unsubscribe(), "unsubscribing")

    def _unsubscribe(self) -> Procedure[None]:
        """Unsubscribe on the bus from all channels that were left in one turn, since a closing socket leaves them one by one."""
        yield from Sleep(0).wait()
        channel_ids, self._left = list(self._left), {}
        for some in batched(channel_ids):
            left = tuple(channel_id for channel_id in some if channel_id not in self._feeds)
            if left:  # the others are followed again
                yield from UnsubscribeChannels(left)

    # --- what arrives --------------------------------------------------------------------------------

    def committed(self, channel_id: str, sequence: int, payload: bytes) -> bool:
        """Handle an event that this replica stored. Return False if nothing local depends on its channel."""
        feed = self._feeds.get(channel_id)
        if feed is None:
            return False
        feed.follower.offer(sequence, payload, len(payload))
        return True

    def received(self, channel_id: str, payload: bytes) -> None:
        """Handle an event from another replica. Repeats are dropped by their sequence. Raises msgspec.DecodeError."""
        feed = self._feeds.get(channel_id)
        if feed is not None:
            feed.follower.received(payload_sequence(payload), payload, len(payload))

    def catch_up(self, channel_id: str, head: int) -> Procedure[None]:
        """Read the log of a held channel at least up to `head`. Raises StorageUnavailable."""
        feed = self._feeds.get(channel_id)
        if feed is not None:
            yield from feed.follower.catch_up(head)

    def reach_epoch(self, channel_id: str, epoch: int | None, base: int = 0) -> Procedure[None]:
        """Make the feed of a held channel follow the log of this epoch, which begins after the sequence `base`.

        Raises StorageUnavailable, also if the epochs still differ afterwards. They differ if the database lost commits and another
        replica has noticed it first, or lost them after the stream's access was checked.
        """
        feed = self._feeds.get(channel_id)
        if feed is None or epoch is None:
            return
        feed.base = base
        while feed.checking is not None:  # streams that arrive together share one read of the history
            yield from feed.checking.wait()
        if feed.epoch == epoch:
            return
        checking = feed.checking = Signal(self.outputs.procedures)
        try:
            yield from self._epochs.check()
            if feed.epoch != epoch:  # both reads may be stale
                heads = yield from ReadHeads((channel_id,))
                head = heads.get(channel_id)
                if feed.epoch is None:
                    feed.saw(head)
                elif head is not None and head.epoch != feed.epoch:
                    self._restart(feed, head)
        finally:
            feed.checking = None
            checking.set()
        if feed.epoch != epoch:
            raise StorageUnavailable

    # --- tails ---------------------------------------------------------------------------------------

    def check_tails(self, *, deaf: bool, everything: bool = False) -> Procedure[None]:
        """Compare the heads of silent feeds with the log, in one query. Raises StorageUnavailable."""
        silent = [feed for feed in self._feeds.values() if feed.follower.wants_check(deaf=deaf, everything=everything)]
        if not silent:
            return
        places = {feed: feed.follower.place for feed in silent}
        heads = yield from ReadHeads(tuple(feed.channel_id for feed in silent))
        short: dict[ChannelFeed, int] = {}
        for feed, place in places.items():
            head = heads.get(feed.channel_id)  # None: deleted; its control record closes the streams
            if head is not None and feed.follower.tail_read(place, head.sequence) is TailCheck.SHORT:
                short[feed] = head.sequence
        if short:
            again = yield from ReadHeads(tuple(feed.channel_id for feed in short))
            for feed, first in short.items():
                second = again.get(feed.channel_id)
                if second is not None and feed.follower.went_back(places[feed], first, second.sequence):
                    what = f"the log of channel {feed.channel_id} went back to {second.sequence}"
                    yield from self._epochs.went_back(what)
                    if feed.follower.went_back(places[feed], first, second.sequence):  # if the store has no history
                        self.outputs.log(
                            Level.ERROR,
                            "the log of a channel went back: its streams start again",
                            channel_id=feed.channel_id,
                        )
                        self._restart(feed, second)

    def restart_all(self) -> Procedure[None]:
        """Restart the feeds whose log has a new epoch. Raises StorageUnavailable.

        Also restarts a feed whose log went back within its epoch: the epoch of a mirrored log is its owner server's.
        """
        self._restarts += 1
        for some in batched([feed for feed in self._feeds.values() if feed.follower.begun]):
            places = [feed.follower.place for feed in some]
            heads = yield from ReadHeads(tuple(feed.channel_id for feed in some))
            for feed, place in zip(some, places, strict=True):
                head = heads.get(feed.channel_id)
                if head is None or head.epoch != feed.epoch:  # else it was opened after the change, or created
                    self._restart(feed, head)
                elif feed.follower.tail_read(place, head.sequence) is TailCheck.SHORT:
                    self._restart(feed, head)

    def _restart(self, feed: ChannelFeed, head: Head | None) -> None:
        """Restart the feed. Released sequences now mean other events, so the channel's streams must end."""
        if not feed.is_current:
            return
        feed.epoch = head.epoch if head is not None else None
        if feed.head == 0:  # nothing was released, so the streams go on, and the tail check finds the events
            feed.follower.restart(0)
            return
        feed.follower.restart(head.sequence if head is not None else 0)
        self.handler.restarted(feed.channel_id)


def batched(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """Split the items into batches of MAX_CHANNELS_AT_ONCE."""
    return (items[start : start + MAX_CHANNELS_AT_ONCE] for start in range(0, len(items), MAX_CHANNELS_AT_ONCE))
