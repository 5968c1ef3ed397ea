"""The hub against a list as its model: no loss, repeat or reorder, and equal depths, under any interleaving."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from openguild_proto.errors import LocalProtocolError
from openguild_proto.fanout import native
from openguild_proto.fanout.hub import Hub, Subscriber, SubscriberState
from openguild_proto.fanout.ring import Ring as PureRing
from openguild_proto.limits import STRETCHED_RINGS

RINGS = sorted({PureRing, native.Ring}, key=str)
CAPACITY = 6
STREAM = "channel"


class Reader:
    """A subscriber, the bytes its socket has got, and where it joined."""

    def __init__(self, subscriber: Subscriber, since: int, head: int) -> None:
        self.subscriber = subscriber
        self.since = since
        self.joined_head = head
        self.got = bytearray()
        self.outbox = b""  # the rest of a cut frame


def frame(sequence: int) -> bytes:
    """Frames of different sizes, each telling its number."""
    return b"<%d:%b>" % (sequence, b"." * (sequence % 7))


class HubMachine(RuleBasedStateMachine):
    ring: type[PureRing] = PureRing

    def __init__(self) -> None:
        super().__init__()
        self.hub = Hub(capacity_events=CAPACITY, capacity_bytes=10_000, ring_type=self.ring)
        self.hub.open(STREAM, 0)
        self.log: list[bytes] = []
        self.readers: list[Reader] = []

    @property
    def head(self) -> int:
        return len(self.log)

    # --- steps -------------------------------------------------------------------------------------

    @rule(count=st.integers(1, CAPACITY + 2))
    def publish(self, count: int) -> None:
        for _ in range(count):
            self.log.append(frame(self.head + 1))
            self.hub.publish(STREAM, self.log[-1], self.head)

    @rule(back=st.integers(0, 12))
    def subscribe(self, back: int) -> None:
        since = max(0, self.head - back)
        self.readers.append(Reader(self.hub.subscribe(STREAM, since), since, self.head))

    def pick(self, data: st.DataObject, *states: SubscriberState) -> Reader | None:
        readers = [reader for reader in self.readers if reader.subscriber.state in states]
        return data.draw(st.sampled_from(readers)) if readers else None

    @rule(data=st.data(), page=st.integers(1, 4))
    def replay_a_page(self, data: st.DataObject, page: int) -> None:
        reader = self.pick(data, SubscriberState.REPLAYING)
        if reader is None:
            return
        hole = self.hub.replay_range(reader.subscriber)
        if hole is None:
            assert reader.subscriber.state is SubscriberState.LIVE
            return
        after, upto = hole
        assert after == reader.subscriber.position
        last = min(after + page, upto)
        reader.got += b"".join(self.log[after:last])
        self.hub.replayed(reader.subscriber, last)

    @rule(data=st.data(), max_bytes=st.integers(1, 60))
    def flush(self, data: st.DataObject, max_bytes: int) -> None:
        """The flush sends to whom the plan names; the kernel takes any part of a span."""
        for subscriber in self.hub.flush_plan(STREAM, 3):
            reader = next(reader for reader in self.readers if reader.subscriber is subscriber)
            assert not reader.outbox, "a parked subscriber was planned"
            self.send(data, reader, max_bytes)

    def send(self, data: st.DataObject, reader: Reader, max_bytes: int) -> None:
        span = self.hub.take(reader.subscriber, max_bytes)
        assert span
        taken = data.draw(st.integers(0, len(span)))
        reader.got += span[:taken]
        reader.outbox = self.hub.sent(reader.subscriber, taken)
        reader.subscriber.parked = bool(reader.outbox)

    @rule(data=st.data())
    def drain_the_outbox(self, data: st.DataObject) -> None:
        reader = self.pick(data, SubscriberState.LIVE)
        if reader is not None and reader.outbox:
            taken = data.draw(st.integers(1, len(reader.outbox)))
            reader.got += reader.outbox[:taken]
            reader.outbox = reader.outbox[taken:]
            reader.subscriber.parked = bool(reader.outbox)

    @rule()
    def take_lagged(self) -> None:
        for lagged in self.hub.take_lagged(100):
            assert lagged.subscriber.state is SubscriberState.LAGGED
            assert lagged.missed == self.head - lagged.resume_from > CAPACITY
            self.ended(lagged.subscriber, lagged.resume_from)

    @rule(data=st.data())
    def unsubscribe(self, data: st.DataObject) -> None:
        reader = self.pick(data, SubscriberState.LIVE, SubscriberState.REPLAYING)
        if reader is not None:
            self.hub.unsubscribe(reader.subscriber)
            self.ended(reader.subscriber, reader.subscriber.position)

    def ended(self, subscriber: Subscriber, resume_from: int) -> None:
        """Resuming from the position it is told loses nothing and repeats nothing."""
        reader = next(reader for reader in self.readers if reader.subscriber is subscriber)
        self.readers.remove(reader)
        assert bytes(reader.got) + reader.outbox == b"".join(self.log[reader.since : resume_from])

    # --- what always holds -------------------------------------------------------------------------

    @invariant()
    def everybody_has_an_unbroken_part_of_the_log(self) -> None:
        for reader in self.readers:
            expected = b"".join(self.log[reader.since : reader.subscriber.position])
            assert bytes(reader.got) + reader.outbox == expected

    @invariant()
    def depth_is_the_deepest_reader(self) -> None:
        depths = [
            self.head
            - (
                reader.joined_head
                if reader.subscriber.state is SubscriberState.REPLAYING
                else reader.subscriber.position
            )
            for reader in self.readers
        ]
        assert self.hub.depth(STREAM) == min(max(depths, default=0), CAPACITY)
        assert self.hub.subscriber_count(STREAM) == len(self.readers)
        assert self.hub.head(STREAM) == self.head

    @precondition(lambda self: self.readers)
    @rule()
    def everybody_can_catch_up(self) -> None:
        """From any state, replaying and flushing to the end gives every reader that is not lagged everything."""
        self.take_lagged()
        for reader in self.readers:
            reader.got += reader.outbox
            reader.outbox = b""
            while (hole := self.hub.replay_range(reader.subscriber)) is not None:
                reader.got += b"".join(self.log[hole[0] : hole[1]])
                self.hub.replayed(reader.subscriber, hole[1])
            reader.subscriber.parked = False
            while span := self.hub.take(reader.subscriber, 100):
                reader.got += span
                self.hub.sent(reader.subscriber, len(span))
            assert bytes(reader.got) == b"".join(self.log[reader.since :])


for _ring in RINGS:
    _name = "TestHubPure" if _ring is PureRing else "TestHubNative"
    _machine = type(_name, (HubMachine,), {"ring": _ring})
    _machine.TestCase.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
    globals()[_name] = _machine.TestCase


@pytest.fixture(params=RINGS, ids=lambda ring: "pure" if ring is PureRing else "native")
def hub(request: pytest.FixtureRequest) -> Hub:
    hub = Hub(capacity_events=CAPACITY, ring_type=request.param)
    hub.open(STREAM, 10)
    return hub


def test_a_ring_is_opened_once_and_published_in_order(hub: Hub) -> None:
    with pytest.raises(LocalProtocolError):
        hub.open(STREAM, 0)
    with pytest.raises(LocalProtocolError):
        hub.publish(STREAM, b"x", 12)
    with pytest.raises(LocalProtocolError):
        hub.publish("other", b"x", 1)
    hub.publish(STREAM, b"x", 11)
    assert hub.head(STREAM) == 11


def test_publish_asks_for_a_flush_at_half_the_ring() -> None:
    """In events or in bytes, whichever comes first."""
    hub = Hub(capacity_events=8, capacity_bytes=1_000)
    hub.open(STREAM, 0)
    assert [hub.publish(STREAM, b"x", sequence) for sequence in range(1, 6)] == [False, False, False, True, True]
    hub.flushed(STREAM)
    assert [hub.publish(STREAM, b"x" * 300, sequence) for sequence in (6, 7)] == [False, True]


def test_a_stretched_ring_holds_a_burst_until_it_is_flushed(hub: Hub) -> None:
    reader = hub.subscribe(STREAM, 10)
    assert hub.has_room("unknown")
    assert [hub.publish(STREAM, b"x", 11 + number) for number in range(CAPACITY)][-1]
    assert hub.stretch(STREAM)
    assert not hub.stretch(STREAM), "it is already"
    published = CAPACITY
    while hub.has_room(STREAM):
        published += 1
        assert not hub.publish(STREAM, b"x", 10 + published)
    assert published == CAPACITY * STRETCHED_RINGS // 2
    crowded = False
    while not crowded:
        published += 1
        crowded = hub.publish(STREAM, b"x", 10 + published)
    assert published == CAPACITY * (STRETCHED_RINGS - 1), "one more ring fits"
    assert hub.take_lagged(10) == []
    assert hub.take(reader, 100_000) == b"x" * published
    hub.flushed(STREAM)
    assert hub.has_room(STREAM)
    hub.publish(STREAM, b"x", 11 + published)
    (lagged,) = hub.take_lagged(10)
    assert (lagged.subscriber, lagged.resume_from) == (reader, 10), "the ring is as small as before"


def test_lagged_subscribers_are_taken_in_batches(hub: Hub) -> None:
    readers = {hub.subscribe(STREAM, 10) for _ in range(7)}
    for number in range(2 * CAPACITY):
        hub.publish(STREAM, b"x", 11 + number)
    named = [hub.take_lagged(3) for _ in range(4)]
    assert [len(some) for some in named] == [3, 3, 1, 0]
    assert {lagged.subscriber for some in named for lagged in some} == readers


def test_since_beyond_the_head_is_refused(hub: Hub) -> None:
    with pytest.raises(LocalProtocolError):
        hub.subscribe(STREAM, 11)


def test_a_handle_that_the_ring_cannot_store_is_refused(hub: Hub) -> None:
    with pytest.raises(LocalProtocolError):
        hub.subscribe(STREAM, 10, handle=2**31)
    hub.publish(STREAM, b"x", 11)
    assert (hub.subscriber_count(STREAM), hub.flush_plan(STREAM, 5)) == (0, [])


@pytest.mark.parametrize("value", [256, -1, "yes"])
def test_whatever_is_true_parks_a_reader(hub: Hub, value: Any) -> None:
    reader = hub.subscribe(STREAM, 10)
    reader.parked = value
    assert reader.parked is True
    reader.parked = False
    assert reader.parked is False


@pytest.mark.parametrize("by", ["parked", "held"])
def test_the_flush_leaves_out_a_reader_that_was_parked_while_it_replayed(hub: Hub, by: str) -> None:
    """Its socket has the rest of a frame to send first; a flush that sends from the ring would write into the middle."""
    reader = hub.subscribe(STREAM, 5)
    if by == "parked":
        reader.parked = True
    else:
        reader.hold(1)
    hub.replayed(reader, 10)
    hub.publish(STREAM, b"x", 11)
    assert reader.state is SubscriberState.LIVE
    assert (reader.parked, hub.flush_plan(STREAM, 5)) == (True, [])
    if by == "parked":
        reader.parked = False
    else:
        reader.hold(-1)
    assert hub.flush_plan(STREAM, 5) == [reader]


def test_a_resume_within_the_ring_is_live_at_once(hub: Hub) -> None:
    for sequence in range(11, 14):
        hub.publish(STREAM, frame(sequence), sequence)
    assert hub.subscribe(STREAM, 11).state is SubscriberState.LIVE
    assert hub.subscribe(STREAM, 5).state is SubscriberState.REPLAYING


def test_closing_returns_the_subscribers(hub: Hub) -> None:
    live, replaying = hub.subscribe(STREAM, 10, owner="a"), hub.subscribe(STREAM, 0, owner="b")
    assert set(hub.close(STREAM)) == {live, replaying}
    assert (live.state, live.position) == (SubscriberState.GONE, 10)
    assert not hub.is_open(STREAM)
    hub.unsubscribe(live)  # safe to repeat
    assert hub.close(STREAM) == []


def test_depths_are_sorted_deepest_first(hub: Hub) -> None:
    """Channels without a backlog are not named (PROTOCOL 11.2.5)."""
    hub.open("quiet", 0)
    hub.subscribe("quiet", 0)
    hub.open("busy", 0)
    hub.subscribe("busy", 0)
    hub.subscribe(STREAM, 10)
    hub.publish(STREAM, b"x", 11)
    for sequence in (1, 2):
        hub.publish("busy", b"x", sequence)
    assert hub.depths(10) == [("busy", 2), (STREAM, 1)]
    assert hub.depths(1) == [("busy", 2)]
