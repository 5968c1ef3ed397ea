"""One suite for both rings, and a state machine that compares the compiled ring with the pure one."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from openguild_proto.errors import LocalProtocolError
from openguild_proto.fanout import native
from openguild_proto.fanout.hub import Hub
from openguild_proto.fanout.ring import Ring as PureRing
from openguild_proto.limits import MAX_RING_INDEX

PURE_RUN = os.environ.get("OPENGUILD_PURE") == "1"
RINGS = [PureRing] if PURE_RUN else [PureRing, native.Ring]


def test_the_compiled_ring_is_built_except_in_pure_runs() -> None:
    assert native.NATIVE or PURE_RUN, "the extension is not built: run `make test`, or set OPENGUILD_PURE=1 on purpose"


@pytest.fixture(params=RINGS, ids=lambda ring: ring.__module__.rpartition(".")[2])
def ring_type(request: pytest.FixtureRequest) -> type[PureRing]:
    return request.param


class TestRing:
    def test_starts_empty_at_its_head(self, ring_type: type[PureRing]) -> None:
        ring = ring_type(41)
        assert (ring.head, ring.tail, len(ring), ring.nbytes, ring.depth(), ring.slots) == (41, 42, 0, 0, 0, 0)

    def test_publish_numbers_frames_and_evicts_by_count(self, ring_type: type[PureRing]) -> None:
        ring = ring_type(0, 3)
        assert [ring.publish(b"%d" % i) for i in range(5)] == [1, 2, 3, 4, 5]
        assert (ring.tail, len(ring), ring.nbytes) == (3, 3, 3)

    def test_evicts_by_bytes_but_keeps_one_frame(self, ring_type: type[PureRing]) -> None:
        ring = ring_type(0, 100, 10)
        ring.publish(b"aaaa")
        ring.publish(b"bbbb")
        assert len(ring) == 2
        ring.publish(b"cccc")
        assert (len(ring), ring.tail) == (2, 2)
        ring.publish(b"d" * 50)
        assert (len(ring), ring.nbytes) == (1, 50)

    @pytest.mark.parametrize("size", [1, 3, 4, 5, 1_000])
    def test_a_frame_is_replaced_in_its_place(self, ring_type: type[PureRing], size: int) -> None:
        ring = ring_type(0, 4, 1 << 20)
        for number in range(6):
            ring.publish(b"%d" % number * 4)
        slot = ring.attach(2)
        ring.replace(4, b"x" * size)
        assert [ring.frame(index) for index in range(3, 7)] == [b"2222", b"x" * size, b"4444", b"5555"]
        assert ring.nbytes == 12 + size
        assert ring.take(slot, 1 << 20) == b"2222" + b"x" * size + b"44445555"
        ring.publish(b"6666")
        assert ring.frame(7) == b"6666"
        for index in (3, 8):
            with pytest.raises(LocalProtocolError):
                ring.replace(index, b"y")
            with pytest.raises(LocalProtocolError):
                ring.frame(index)
        with pytest.raises(LocalProtocolError):
            ring.replace(4, b"")

    def test_new_bounds_apply_at_the_next_publish(self, ring_type: type[PureRing]) -> None:
        ring = ring_type(0, 2, 1_000)
        ring.publish(b"a" * 400)
        ring.resize(5, 100_000)
        for _ in range(4):
            ring.publish(b"b" * 20_000)
        assert (len(ring), ring.nbytes) == (5, 80_400)
        slot = ring.attach(4)
        ring.resize(2, 1_000)
        assert len(ring) == 5
        ring.publish(b"c")
        assert (len(ring), ring.take(slot, 100)) == (1, b""), "in bytes, at least one frame"
        assert ring.lagged() == [slot]
        for number in range(10):
            ring.publish(b"%d" % number)
        assert ring.take(ring.attach(ring.head - 2), 100) == b"89"
        with pytest.raises(LocalProtocolError):
            ring.resize(0, 1)

    def test_take_gives_contiguous_whole_frames(self, ring_type: type[PureRing]) -> None:
        ring = ring_type(10)
        slot = ring.attach(10)
        for frame in (b"one", b"two", b"three"):
            ring.publish(frame)
        assert ring.take(slot, 1000) == b"onetwothree"
        assert ring.take(slot, 7) == b"onetwo"
        assert ring.take(slot, 1) == b"one", "at least one frame"
        assert ring.cursor(slot) == 10, "taking moves nothing"

    def test_sent_moves_in_whole_frames_and_returns_the_rest_of_a_cut_one(self, ring_type: type[PureRing]) -> None:
        ring = ring_type(0)
        slot = ring.attach(0)
        for frame in (b"one", b"two", b"three"):
            ring.publish(frame)
        assert ring.sent(slot, 4) == b"wo"
        assert ring.cursor(slot) == 2
        assert ring.take(slot, 1000) == b"three"
        assert ring.sent(slot, 5) == b""
        assert ring.take(slot, 1000) == b""
        assert ring.sent(slot, 0) == b""

    def test_a_handle_lives_exactly_as_long_as_its_slot(self, ring_type: type[PureRing]) -> None:
        """What makes a reused file descriptor harmless."""
        ring = ring_type(0)
        slot = ring.attach(0)
        assert ring.handle(slot) == -1
        ring.bind(slot, 17)
        with pytest.raises(OverflowError):
            ring.bind(slot, 2**31)
        assert ring.handle(slot) == 17
        ring.detach(slot)
        with pytest.raises(LocalProtocolError):
            ring.handle(slot)
        with pytest.raises(LocalProtocolError):
            ring.bind(slot, 18)
        assert ring.attach(0) == slot
        assert ring.handle(slot) == -1

    def test_deliver_is_pending_take_and_sent(self, ring_type: type[PureRing]) -> None:
        ring = ring_type(0)
        slots = [ring.attach(0) for _ in range(3)]
        ring.publish(b"one")
        ring.park(slots[1], True)
        assert ring.deliver(1, 100) == [(b"one", [slots[0]])]
        ring.publish(b"two")
        assert ring.deliver(9, 100) == [(b"onetwo", [slots[2]]), (b"two", [slots[0]])]
        ring.publish(b"three")
        assert ring.deliver(9, 100) == [(b"three", [slots[2], slots[0]])]
        assert ring.deliver(9, 100) == []
        assert ring.deliver(0, 100) == []
        assert [ring.cursor(slot) for slot in slots] == [3, 0, 3]

    @pytest.mark.parametrize(
        ("frame", "error"), [(b"", LocalProtocolError), ("text", TypeError), (bytearray(b"x"), TypeError)]
    )
    def test_what_is_no_frame_is_refused(self, ring_type: type[PureRing], frame: bytes, error: type[Exception]) -> None:
        ring = ring_type(0)
        with pytest.raises(error):
            ring.publish(frame)
        assert ring.head == 0
        ring.publish(b"a")
        with pytest.raises(error):
            ring.replace(1, frame)
        with pytest.raises(LocalProtocolError, match="does not hold"):
            ring.replace(2, b"")
        assert ring.frame(1) == b"a"

    def test_pending_takes_turns_and_skips_parked(self, ring_type: type[PureRing]) -> None:
        ring = ring_type(0)
        slots = [ring.attach(0) for _ in range(5)]
        assert ring.pending(10) == []
        ring.publish(b"x")
        assert sorted(ring.pending(10)) == slots
        first, second = ring.pending(2), ring.pending(2)
        assert set(first).isdisjoint(second)
        ring.park(slots[3], True)
        assert ring.is_parked(slots[3])
        assert slots[3] not in ring.pending(10)
        ring.park(slots[3], False)
        assert slots[3] in ring.pending(10)

    def test_lagged_slots_and_the_deepest_depth(self, ring_type: type[PureRing]) -> None:
        ring = ring_type(0, 4)
        slow, fast = ring.attach(0), ring.attach(0)
        for _ in range(4):
            ring.publish(b"x")
            ring.sent(fast, 1)
        assert ring.lagged() == []
        assert ring.depth() == 4
        ring.publish(b"x")
        assert ring.lagged() == [slow]
        assert ring.pending(10) == [fast]
        assert ring.take(slow, 10) == b""
        with pytest.raises(LocalProtocolError):
            ring.sent(slow, 1)
        ring.detach(slow)
        assert ring.depth() == 1

    def test_depth_falls_as_readers_drain(self, ring_type: type[PureRing]) -> None:
        ring = ring_type(0)
        slot = ring.attach(0)
        for _ in range(3):
            ring.publish(b"abc")
        depths = []
        while span := ring.take(slot, 1):
            ring.sent(slot, len(span))
            depths.append(ring.depth())
        assert depths == [2, 1, 0]

    def test_slots_are_reused(self, ring_type: type[PureRing]) -> None:
        ring = ring_type(0)
        first = ring.attach(0)
        ring.park(first, True)
        ring.detach(first)
        again = ring.attach(0)
        assert again == first
        assert not ring.is_parked(again)
        assert ring.slots == 1

    @pytest.mark.parametrize("misuse", [
        lambda ring: ring.attach(-1), lambda ring: ring.attach(99), lambda ring: ring.cursor(0), lambda ring: ring.detach(7),
        lambda ring: ring.take(-1, 1), lambda ring: ring.park(3, True), lambda ring: ring.is_parked(0),
    ])  # fmt: skip
    def test_misuse_is_refused(self, ring_type: type[PureRing], misuse) -> None:
        with pytest.raises(LocalProtocolError):
            misuse(ring_type(5))

    @pytest.mark.parametrize("head", [-1, -100_000, MAX_RING_INDEX + 1, (1 << 63) - 1, 1 << 70])
    def test_an_invalid_head_is_refused(self, ring_type: type[PureRing], head: int) -> None:
        with pytest.raises(LocalProtocolError):
            ring_type(head)
        hub = Hub(ring_type=ring_type)
        with pytest.raises(LocalProtocolError):
            hub.open("c", head)
        assert not hub.is_open("c")

    def test_the_highest_head_can_be_published_to(self, ring_type: type[PureRing]) -> None:
        ring = ring_type(MAX_RING_INDEX)
        slot = ring.attach(MAX_RING_INDEX)
        assert ring.publish(b"x") == MAX_RING_INDEX + 1
        assert ring.take(slot, 1) == b"x"

    def test_sending_more_than_held_changes_nothing(self, ring_type: type[PureRing]) -> None:
        ring = ring_type(0)
        slot = ring.attach(0)
        with pytest.raises(LocalProtocolError):
            ring.sent(slot, 1)
        for frame in (b"one", b"two"):
            ring.publish(frame)
        with pytest.raises(LocalProtocolError):
            ring.sent(slot, 7)
        assert ring.cursor(slot) == 0
        assert ring.take(slot, 100) == b"onetwo"

    def test_misuse_of_bounds_is_refused(self, ring_type: type[PureRing]) -> None:
        with pytest.raises(LocalProtocolError):
            ring_type(0, 0)
        ring = ring_type(0)
        slot = ring.attach(0)
        ring.publish(b"x")
        with pytest.raises(LocalProtocolError):
            ring.sent(slot, 2)

    def test_large_and_small_frames_keep_their_bytes(self, ring_type: type[PureRing]) -> None:
        ring = ring_type(0, 256, 1 << 16)
        slot = ring.attach(0)
        for size in [1, 30_000, 2, 40_000, 3, 50_000, 126, 1] * 30:
            frame = bytes([size % 251]) * size
            ring.publish(frame)
            assert ring.take(slot, 1 << 20) == frame
            ring.sent(slot, size)


@pytest.mark.skipif(PURE_RUN, reason="the pure run has nothing to compare with")
class TestNativeMemory:
    def test_a_quiet_ring_uses_little_memory(self) -> None:
        ring = native.Ring(0)
        assert ring.allocated == 0
        ring.attach(0)
        ring.publish(b"x" * 300)
        assert ring.allocated < 2_048


class RingMachine(RuleBasedStateMachine):
    """The same steps on both rings give the same answers."""

    def __init__(self) -> None:
        super().__init__()
        self.rings = [ring(7, 5, 60) for ring in RINGS]
        self.slots: list[int] = []

    def both(self, call):
        answers = [call(ring) for ring in self.rings]
        assert answers.count(answers[0]) == len(answers)
        return answers[0]

    @rule(frame=st.binary(min_size=1, max_size=25))
    def publish(self, frame: bytes) -> None:
        self.both(lambda ring: ring.publish(frame))

    @precondition(lambda self: len(self.rings[0]) > 0)
    @rule(data=st.data(), frame=st.binary(min_size=1, max_size=40))
    def replace(self, data: st.DataObject, frame: bytes) -> None:
        index = data.draw(st.integers(self.rings[0].tail, self.rings[0].head))
        self.both(lambda ring: ring.replace(index, frame))

    @rule(back=st.integers(0, 6))
    def attach(self, back: int) -> None:
        cursor = max(self.rings[0].tail - 1, self.rings[0].head - back)
        self.slots.append(self.both(lambda ring: ring.attach(cursor)))

    @precondition(lambda self: self.slots)
    @rule(data=st.data())
    def detach(self, data: st.DataObject) -> None:
        slot = data.draw(st.sampled_from(self.slots))
        self.both(lambda ring: ring.detach(slot))
        self.slots.remove(slot)

    @precondition(lambda self: self.slots)
    @rule(data=st.data(), parked=st.booleans())
    def park(self, data: st.DataObject, parked: bool) -> None:
        slot = data.draw(st.sampled_from(self.slots))
        self.both(lambda ring: ring.park(slot, parked))

    @precondition(lambda self: self.slots)
    @rule(data=st.data(), max_bytes=st.integers(0, 80))
    def take_and_send(self, data: st.DataObject, max_bytes: int) -> None:
        slot = data.draw(st.sampled_from(self.slots))
        span = self.both(lambda ring: ring.take(slot, max_bytes))
        if span:
            nbytes = data.draw(st.integers(0, len(span)))
            self.both(lambda ring: ring.sent(slot, nbytes))

    @rule(limit=st.integers(0, 4), max_bytes=st.integers(0, 80))
    def deliver(self, limit: int, max_bytes: int) -> None:
        self.both(lambda ring: ring.deliver(limit, max_bytes))

    @rule(limit=st.integers(1, 4))
    def pending(self, limit: int) -> None:
        self.both(lambda ring: ring.pending(limit))

    @invariant()
    def same_state(self) -> None:
        self.both(lambda ring: (ring.head, ring.tail, len(ring), ring.nbytes, ring.depth(), ring.lagged(), ring.slots))
        self.both(lambda ring: [ring.frame(index) for index in range(ring.tail, ring.head + 1)])
        for slot in self.slots:
            self.both(lambda ring, slot=slot: (ring.cursor(slot), ring.is_parked(slot), ring.handle(slot)))


RingMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestRingMachine = RingMachine.TestCase
