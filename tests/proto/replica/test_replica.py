"""The replica as a whole: what goes out in which order, when the tails are checked, and that a failure stays where it is."""

from __future__ import annotations

import inspect
import random

import pytest

from openguild_proto.effects import Effect, StorageUnavailable
from openguild_proto.effects.channels import ReadEvents
from openguild_proto.effects.replica import ReadControlHead, ReadHeads, ReadHistory
from openguild_proto.hints import ReadHint
from openguild_proto.limits import CATCH_UP_SECS, GAP_GRACE_SECS, TAIL_CHECK_SECS
from openguild_proto.records import ReadState
from openguild_proto.replica import replica as replica_module
from openguild_proto.replica.actions import Flush, Publish
from openguild_proto.replica.replica import Replica
from openguild_proto.schemas.payloads import event_frame_payload
from tests.support.driven_replica import Driven


@pytest.fixture
def driven() -> Driven:
    return Driven()


@pytest.fixture
def channel(driven: Driven) -> str:
    return driven.elsewhere.channel(driven.elsewhere.user())


def hold(driven: Driven, channel: str) -> None:
    driven.run(driven.replica.channels.follow([channel]))


def head(driven: Driven, channel: str) -> int | None:
    feed = driven.replica.channels.get(channel)
    return feed.head if feed is not None else None


def test_an_event_stored_here_reaches_its_own_subscribers_first(driven: Driven, channel: str) -> None:
    driven.open(driven.elsewhere.user(), channel)
    driven.actions.clear()
    event = driven.commit(channel)
    assert [type(action) for action in driven.actions] == [Flush, Publish]
    assert driven.published == [event_frame_payload(event)]


def test_many_events_of_one_turn_are_flushed_together(driven: Driven, channel: str) -> None:
    driven.open(driven.elsewhere.user(), channel)
    driven.actions.clear()
    for _ in range(5):
        driven.replica.committed(driven.elsewhere.append(channel), "", now=driven.now)
    driven.perform_actions()
    assert [type(action) for action in driven.actions].count(Flush) == 1


@pytest.mark.parametrize("seed", range(3))
def test_a_lost_last_message_waits_for_one_interval_only(seed: int) -> None:
    """Wherever between two checks it is lost: what was heard right before it does not put it off."""
    driven = Driven(jitter=random.Random(seed).random)
    channel = driven.elsewhere.channel(driven.elsewhere.user())
    hold(driven, channel)
    driven.replica.follow(now=driven.now)
    for turn in range(100):
        driven.sleep(0.037 * turn % 2.5)
        driven.deliver(driven.elsewhere.append(channel))
        lost = driven.elsewhere.append(channel).sequence
        driven.sleep(1.25 * TAIL_CHECK_SECS + GAP_GRACE_SECS)
        assert head(driven, channel) == lost


@pytest.mark.parametrize("deaf", [False, True])
def test_a_quiet_feed_costs_one_line_in_each_interval(deaf: bool) -> None:
    driven = Driven(jitter=random.Random(1).random)
    channel = driven.elsewhere.channel(driven.elsewhere.user())
    hold(driven, channel)
    driven.replica.follow(now=driven.now)
    if deaf:
        driven.replica.bus_state(False, now=driven.now)
    driven.asked.clear()
    driven.sleep(1_000)
    most = 1_000 / TAIL_CHECK_SECS
    for kind, times in ((ReadHeads, 1), (ReadControlHead, 2)):
        assert 0.9 * most < driven.count(kind) / times < 1.1 * most


def test_a_busy_feed_is_asked_for_only_while_the_wire_is_down(driven: Driven, channel: str) -> None:
    hold(driven, channel)
    driven.replica.follow(now=driven.now)
    asked = driven.count(ReadHeads)
    for _ in range(40):
        driven.deliver(driven.elsewhere.append(channel))
        driven.sleep(TAIL_CHECK_SECS / 8)
    assert driven.count(ReadHeads) == asked
    driven.replica.bus_state(False, now=driven.now)
    for _ in range(40):
        driven.deliver(driven.elsewhere.append(channel))
        driven.sleep(TAIL_CHECK_SECS / 8)
    assert driven.count(ReadHeads) > asked


def test_when_the_wire_is_back_everything_is_checked_at_once(driven: Driven, channel: str) -> None:
    other = driven.elsewhere.channel(driven.elsewhere.user())
    hold(driven, channel)
    hold(driven, other)
    driven.replica.bus_state(False, now=driven.now)
    driven.replica.bus_state(False, now=driven.now)
    driven.deliver(driven.elsewhere.append(channel))  # just heard of
    driven.elsewhere.append(channel)
    driven.elsewhere.append(other)
    for _ in range(2):
        driven.replica.bus_state(True, now=driven.now)
    driven.perform_actions()
    driven.sleep(GAP_GRACE_SECS)
    assert (head(driven, channel), head(driven, other)) == (2, 1)
    assert driven.replica.controls.follower.head == driven.elsewhere.tables.control_head()


@pytest.mark.parametrize("noticed", [False, True])
def test_a_wire_that_reports_its_return_itself_loses_nothing(driven: Driven, channel: str, noticed: bool) -> None:
    """Its state is told with the next deadline only: by then it may have been away and back."""
    hold(driven, channel)
    if noticed:
        driven.replica.bus_state(False, now=driven.now)
    driven.deliver(driven.elsewhere.append(channel))  # just heard of
    driven.elsewhere.append(channel)
    driven.elsewhere.channel(driven.elsewhere.user())
    driven.asked.clear()
    driven.replica.catch_up(now=driven.now)
    driven.perform_actions()
    driven.replica.bus_state(True, now=driven.now)
    driven.sleep(CATCH_UP_SECS + GAP_GRACE_SECS)
    assert head(driven, channel) == 2
    assert driven.replica.controls.follower.head == driven.elsewhere.tables.control_head()
    assert driven.count(ReadHeads) == (2 if noticed else 1), "at most one more check"


def test_a_wire_that_was_never_away_has_nothing_checked(driven: Driven, channel: str) -> None:
    hold(driven, channel)
    driven.asked.clear()
    for _ in range(3):
        driven.replica.bus_state(True, now=driven.now)
        driven.perform_actions()
    assert driven.asked == []


def test_however_often_the_wire_comes_back_one_check_runs_at_a_time(driven: Driven, channel: str) -> None:
    hold(driven, channel)
    driven.asked.clear()
    held = driven.hold(ReadHeads)
    for _ in range(50):
        driven.replica.catch_up(now=driven.now)
        driven.perform_actions()
    assert len(held.queries) == 1
    held.release()
    driven.let_pass(ReadHeads)
    driven.sleep(0.9 * CATCH_UP_SECS)
    assert driven.count(ReadHeads) == 1
    driven.sleep(0.2 * CATCH_UP_SECS)
    assert driven.count(ReadHeads) == 2, "what was asked for meanwhile is one more"
    driven.sleep(10 * CATCH_UP_SECS)
    assert driven.count(ReadHeads) == 2
    driven.replica.catch_up(now=driven.now)
    driven.perform_actions()
    assert driven.count(ReadHeads) == 3, "at once again"


@pytest.mark.parametrize("failure", [StorageUnavailable(), ValueError("ours")])
@pytest.mark.parametrize("kind", [ReadHistory, ReadHeads, ReadControlHead])
def test_a_part_of_a_check_that_fails_does_not_stop_the_others(
    driven: Driven, channel: str, kind: type[Effect[object]], failure: Exception
) -> None:
    hold(driven, channel)
    driven.replica.follow(now=driven.now)
    driven.failing[kind] = failure
    driven.elsewhere.append(channel)
    driven.sleep(3 * TAIL_CHECK_SECS)
    if kind is not ReadHeads:
        assert head(driven, channel) == 1
    if kind is not ReadControlHead:
        assert driven.replica.controls.follower.head == driven.elsewhere.tables.control_head()
    assert bool(driven.defects) is isinstance(failure, ValueError)
    driven.failing.clear()
    driven.sleep(2 * TAIL_CHECK_SECS)
    assert head(driven, channel) == 1
    assert driven.replica.controls.follower.head == driven.elsewhere.tables.control_head()


def test_a_defect_in_one_channel_leaves_the_others_alone(driven: Driven, channel: str) -> None:
    other = driven.elsewhere.channel(driven.elsewhere.user())
    sockets = [driven.open(driven.elsewhere.user(), one) for one in (channel, other)]
    reads = driven.hold(ReadEvents)
    for one in (channel, other):
        driven.elsewhere.append(one)
        driven.deliver(driven.elsewhere.append(one))
    driven.sleep(GAP_GRACE_SECS)
    query, _ = reads.queries.pop(0)
    driven.replica.failed(query.number, ValueError("ours"), now=driven.now)
    driven.let_pass(ReadEvents)
    assert [socket.sequences for socket in sockets] == [[], [1, 2]]
    assert len(driven.defects) == 1
    driven.commit(channel)
    driven.sleep(GAP_GRACE_SECS)
    assert sockets[0].sequences == [1, 2, 3], "it is read again at the next sign"


def test_a_start_that_failed_can_be_tried_again() -> None:
    driven = Driven(started=False)
    driven.failing[ReadHistory] = StorageUnavailable()
    assert isinstance(driven.run(driven.replica.start())[1], StorageUnavailable)
    driven.failing.clear()
    assert driven.run(driven.replica.start()) == [None, None]
    assert driven.replica.controls.follower.begun


def test_an_early_deadline_does_nothing(driven: Driven, channel: str) -> None:
    assert driven.replica.next_deadline() is None
    driven.replica.follow(now=driven.now)
    due = driven.replica.next_deadline()
    assert due is not None
    driven.asked.clear()
    driven.replica.handle_deadline(now=due - 0.01)
    driven.perform_actions()
    assert driven.asked == []
    assert driven.replica.next_deadline() == due


def test_what_is_answered_twice_or_was_never_asked_is_passed_over(driven: Driven, channel: str) -> None:
    held = driven.hold(ReadHeads)
    hold(driven, channel)
    query, _ = held.queries[0]
    held.release()
    for number in (query.number, 10**6):
        driven.replica.answered(number, {channel: 9}, now=driven.now)
        driven.replica.failed(number, ValueError("ours"), now=driven.now)
    driven.perform_actions()
    assert head(driven, channel) == 0
    assert driven.defects == []


def test_replica_lists_every_input() -> None:
    """An input is what takes the time."""
    inputs = [
        name
        for name, method in inspect.getmembers(Replica, inspect.isfunction)
        if not name.startswith("_") and "now" in inspect.signature(method).parameters
    ]
    assert [name for name in inputs if f"`{name}`" not in (replica_module.__doc__ or "")] == []


def test_depths_tell_channels_from_notifications(driven: Driven, channel: str) -> None:
    reader, watcher = driven.elsewhere.user(), driven.elsewhere.user()
    driven.flushing = False
    driven.open(reader, channel)
    driven.open(watcher)
    for _ in range(3):
        driven.commit(channel)
    state = ReadState(channel_id=channel, last_read_sequence=1, latest_sequence=3, unread=2)
    driven.replica.announce(ReadHint(watcher, state), now=driven.now)
    driven.perform_actions()
    assert driven.replica.depths() == ([(channel, 3)], 1)
