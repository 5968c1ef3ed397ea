"""Following a log: in order, once, and in the end all of it, whatever the wire and the store do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from openguild_proto.effects import StorageUnavailable
from openguild_proto.limits import GAP_GRACE_SECS, ROOM_LOOK_SECS
from openguild_proto.log.follower import TailCheck
from tests.support.followed_log import FollowedLog


class Following(RuleBasedStateMachine):
    """Any interleaving of all that happens to a log, its wire and its store."""

    def __init__(self) -> None:
        super().__init__()
        self.log = FollowedLog()
        self.wire: list[tuple[int, tuple[int, int]]] = []

    @rule(early=st.booleans())
    def answer_early_or_late(self, early: bool) -> None:
        if not self.log.reads:
            self.log.early = early

    @rule(count=st.integers(1, 5))
    def store_here(self, count: int) -> None:
        for sequence, item in self.log.append(count):
            self.log.follower.offer(sequence, item, 10)

    @rule(count=st.integers(1, 5))
    def store_elsewhere(self, count: int) -> None:
        self.wire += self.log.append(count)

    @precondition(lambda self: self.wire)
    @rule(data=st.data(), repeat=st.booleans())
    def hear(self, data: st.DataObject, repeat: bool) -> None:
        place = data.draw(st.integers(0, len(self.wire) - 1))
        sequence, item = self.wire[place] if repeat else self.wire.pop(place)
        self.log.follower.received(sequence, item, 10)

    @precondition(lambda self: self.wire)
    @rule()
    def lose_what_is_on_the_wire(self) -> None:
        self.wire.clear()

    @rule(room=st.booleans())
    def crowd(self, room: bool) -> None:
        self.log.room = room

    @rule(secs=st.sampled_from([ROOM_LOOK_SECS, GAP_GRACE_SECS, 1.0]))
    def wait(self, secs: float) -> None:
        self.log.sleep(secs)

    @precondition(lambda self: self.log.reads)
    @rule(data=st.data(), fails=st.booleans())
    def answer(self, data: st.DataObject, fails: bool) -> None:
        place = data.draw(st.integers(0, len(self.log.reads) - 1))
        (self.log.fail if fails else self.log.answer)(place)

    @rule()
    def check(self) -> None:
        self.log.check()
        self.log.sleep(0)

    @rule()
    def catch_up(self) -> None:
        self.log.procedures.start(self.log.follower.catch_up(len(self.log.items)), "catching up")
        self.log.sleep(0)

    @precondition(lambda self: self.log.items)
    @rule(data=st.data())
    def go_back(self, data: st.DataObject) -> None:
        self.wire.clear()
        self.log.go_back(data.draw(st.integers(0, len(self.log.items) - 1)))

    @invariant()
    def in_order_and_once(self) -> None:
        assert self.log.sequences == list(range(1, len(self.log.released) + 1))
        assert self.log.defects == []

    def teardown(self) -> None:
        self.log.room = True
        self.log.settle()
        self.log.check()
        self.log.settle()
        assert self.log.released == self.log.items
        assert self.log.follower.missing() is None
        assert not self.log.follower.is_reading
        assert self.log.procedures.idle


Following.TestCase.settings = settings(max_examples=300, stateful_step_count=30, deadline=None)
TestFollowing = Following.TestCase


def test_what_comes_in_order_is_released_at_once() -> None:
    log = FollowedLog()
    for sequence, item in log.append(3):
        log.follower.offer(sequence, item)
    assert log.sequences == [1, 2, 3]
    assert log.procedures.next_deadline() is None


def test_a_hole_that_closes_by_itself_is_not_read() -> None:
    log = FollowedLog()
    (first, one), (second, two) = log.append(2)
    log.follower.received(second, two)
    log.sleep(0.9 * GAP_GRACE_SECS)
    assert log.sequences == []
    log.follower.received(first, one)
    log.settle()
    assert log.sequences == [1, 2]
    assert log.asked == 0


def test_a_hole_is_read_after_its_grace_once_and_page_by_page() -> None:
    log = FollowedLog()
    for sequence, item in log.append(8)[6:]:
        log.follower.received(sequence, item)
    log.sleep(GAP_GRACE_SECS)
    assert log.asked == 1
    log.settle()
    assert log.sequences == list(range(1, 9))
    assert (log.asked, log.read_items) == (2, 6)


def test_a_read_that_fails_is_tried_again_at_the_next_sign() -> None:
    log = FollowedLog()
    (sequence, item) = log.append(2)[1]
    log.follower.received(sequence, item)
    log.sleep(GAP_GRACE_SECS)
    log.fail()
    log.sleep(10)
    assert log.reads == [], "it does not press a store that is away"
    log.follower.received(sequence, item)
    log.settle()
    assert log.sequences == [1, 2]


def test_nothing_is_read_while_there_is_no_room() -> None:
    log = FollowedLog()
    log.room = False
    for sequence, item in log.append(2):
        log.follower.offer(sequence, item)
    log.sleep(1)
    assert (log.sequences, log.asked) == ([], 0)
    log.room = True
    log.sleep(ROOM_LOOK_SECS)
    log.settle()
    assert log.sequences == [1, 2]


def test_a_log_that_nobody_follows_any_more_is_not_read() -> None:
    log = FollowedLog()
    log.follower.saw_head(log.append(5)[-1][0])
    log.sleep(GAP_GRACE_SECS)
    log.followed = False
    log.settle()
    assert log.sequences == []
    assert log.asked == 1
    assert not log.follower.is_reading


def test_before_its_head_is_known_what_comes_is_kept() -> None:
    log = FollowedLog(None)
    log.append(2)
    log.released = list(log.items)
    for sequence, item in log.append(2):
        log.follower.received(sequence, item)
    assert not log.follower.begun
    assert not log.follower.wants_check(deaf=True, everything=True)
    log.settle()
    assert log.asked == 0
    log.follower.begin(2)
    assert log.sequences == [1, 2, 3, 4]


def test_catching_up_ends_when_the_log_is_released_that_far() -> None:
    log, ended = FollowedLog(), list[Any]()
    log.append(5)
    log.procedures.start(log.follower.catch_up(5), "it", lambda *end: ended.append(end))
    log.sleep(0)
    assert ended == []
    log.settle()
    assert ended == [(None, None)]
    assert log.sequences == [1, 2, 3, 4, 5]
    log.procedures.start(log.follower.catch_up(3), "it", lambda *end: ended.append(end))
    assert log.reads == []
    assert len(ended) == 2


def test_catching_up_tells_of_an_outage() -> None:
    log, ended = FollowedLog(), list[Any]()
    log.append(1)
    log.procedures.start(log.follower.catch_up(1), "it", lambda *end: ended.append(end))
    log.sleep(0)
    log.fail()
    assert isinstance(ended[0][1], StorageUnavailable)


@pytest.mark.parametrize("skips", [True, False])
def test_the_source_decides_about_what_is_gone(skips: bool) -> None:
    log = FollowedLog()
    log.skips = skips
    log.append(5)
    log.first = 4
    log.follower.saw_head(5)
    log.settle()
    assert log.sequences == ([4, 5] if skips else [])
    assert log.follower.head == (5 if skips else 0)
    assert not log.follower.is_reading


# --- the tail ------------------------------------------------------------------------------------


def hear_one(log: FollowedLog) -> None:
    log.follower.received(*log.append()[0])


def offer_one(log: FollowedLog) -> None:
    log.follower.offer(*log.append()[0])


def hear_a_repeat(log: FollowedLog) -> None:
    log.follower.received(log.follower.head, log.items[-1])


@pytest.mark.parametrize(("what", "wants"), [(hear_one, False), (offer_one, True), (hear_a_repeat, True)])
def test_only_news_of_the_wire_puts_a_check_off(what: Callable[[FollowedLog], None], wants: bool) -> None:
    log = FollowedLog()
    log.follower.offer(*log.append()[0])
    log.follower.wants_check(deaf=False, everything=False)
    log.follower.wants_check(deaf=False, everything=False)  # none twice in a row: the next one asks
    what(log)
    assert log.follower.wants_check(deaf=False, everything=False) is wants


def test_checks_alternate_and_a_busy_log_is_not_asked() -> None:
    log = FollowedLog()
    assert [log.follower.wants_check(deaf=False, everything=False) for _ in range(4)] == [True, False, True, False]
    for _ in range(4):
        hear_one(log)
        assert not log.follower.wants_check(deaf=False, everything=False)


def test_while_the_wire_is_down_what_was_heard_proves_nothing() -> None:
    log = FollowedLog()
    hear_one(log)
    assert log.follower.wants_check(deaf=True, everything=False)
    assert log.follower.wants_check(deaf=False, everything=True), "everything may be lost"


def test_a_tail_says_where_the_log_stands() -> None:
    log = FollowedLog()
    for _ in range(3):
        offer_one(log)
    place = log.follower.place
    assert log.follower.tail_read(place, 3) is TailCheck.SAME
    assert log.follower.tail_read(place, 2) is TailCheck.SHORT
    assert log.follower.went_back(place, 2, 2)
    assert not log.follower.went_back(place, 2, 3), "one reading was stale"
    log.append()
    assert log.follower.tail_read(place, 4) is TailCheck.FURTHER
    log.settle()
    assert log.sequences == [1, 2, 3, 4]


@pytest.mark.parametrize("head", [1, 3])
def test_what_was_read_of_a_log_before_a_restart_is_not_believed(head: int) -> None:
    log = FollowedLog()
    for _ in range(3):
        offer_one(log)
    place = log.follower.place
    log.append(2)
    log.go_back(head)
    assert log.follower.tail_read(place, 5) is TailCheck.SAME
    assert log.follower.tail_read(place, 1) is TailCheck.SAME
    assert log.follower.missing() is None
    assert not log.follower.went_back(place, 1, 1), "that is settled"


def test_a_page_read_before_a_restart_belongs_to_another_log() -> None:
    """Even where the new log has come to the same place by then."""
    log = FollowedLog()
    log.early = True
    for _ in range(2):
        offer_one(log)
    log.append()
    log.follower.saw_head(3)
    log.sleep(GAP_GRACE_SECS)
    log.go_back(1)
    offer_one(log)
    assert log.follower.head == 2
    log.append()
    log.follower.saw_head(3)
    log.settle()
    assert log.released == [(1, 1), (1, 2), (1, 3)]
