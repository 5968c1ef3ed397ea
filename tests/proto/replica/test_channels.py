"""Channels that a replica follows: held and let go, heard, read where the bus lost something, and begun anew."""

from __future__ import annotations

import pytest

from openguild_proto.effects import StorageUnavailable
from openguild_proto.effects.channels import DeleteChannel, ReadEvents
from openguild_proto.effects.replica import ReadHeads, SubscribeChannels, UnsubscribeChannels
from openguild_proto.limits import GAP_GRACE_SECS, MAX_CHANNELS_AT_ONCE, ROOM_LOOK_SECS
from openguild_proto.records import Author, Head
from openguild_proto.replica.channels import Channels
from openguild_proto.ws import reasons
from openguild_proto.ws.close_codes import CloseCode
from tests.support.driven_replica import Driven


class Held:
    """A replica with one channel, and its streams."""

    def __init__(self) -> None:
        self.driven = Driven()
        self.user = self.driven.elsewhere.user()
        self.channel = self.driven.elsewhere.channel(self.user)
        self.channels: Channels = self.driven.replica.channels

    def hold(self, *channels: str) -> list[object]:
        return self.driven.run(self.channels.follow(channels or (self.channel,)))

    def unfollow(self, *channels: str) -> None:
        self.channels.unfollow(channels or (self.channel,))
        self.driven.perform_actions()

    def check(self, *, everything: bool = False) -> list[object]:
        return self.driven.run(self.channels.check_tails(deaf=False, everything=everything))

    @property
    def head(self) -> int | None:
        feed = self.channels.get(self.channel)
        return feed.head if feed is not None else None


@pytest.fixture
def held() -> Held:
    return Held()


# --- holding -------------------------------------------------------------------------------------


def test_a_channel_is_heard_before_its_head_is_read(held: Held) -> None:
    held.driven.elsewhere.append(held.channel)
    heads = held.driven.hold(ReadHeads)
    ended = held.hold()
    assert held.driven.wire == {held.channel}
    lost, heard = [held.driven.elsewhere.append(held.channel) for _ in range(2)]
    held.driven.deliver(heard)
    assert ended == []
    del lost
    heads.release()
    assert ended == [{held.channel}, None]
    assert held.head == 3


def test_the_last_holder_that_lets_go_ends_it(held: Held) -> None:
    assert held.hold() == held.hold() == [{held.channel}, None]
    assert held.driven.count(ReadHeads) == 1
    held.unfollow()
    assert held.driven.wire == {held.channel}
    held.unfollow()
    assert held.driven.leftovers() == {}
    held.unfollow()
    assert held.driven.defects == []


def test_many_channels_are_opened_by_one_question_and_in_pieces(held: Held) -> None:
    many = [f"c{number}" for number in range(10 * MAX_CHANNELS_AT_ONCE)]
    held.driven.answers[ReadHeads] = lambda effect: dict.fromkeys(effect.channel_ids, Head(0))
    assert held.hold(*many) == [set(many), None]
    assert held.driven.count(ReadHeads) == 1
    assert held.driven.count(SubscribeChannels) == 10
    assert held.driven.wire == set(many)
    held.unfollow(*many)
    assert held.driven.count(UnsubscribeChannels) == 10
    assert held.driven.leftovers() == {}


def test_a_channel_that_is_gone_by_now_is_left_out(held: Held) -> None:
    assert held.hold("gone", held.channel) == [{held.channel}, None]
    assert held.driven.wire == {held.channel}
    assert held.channels.get("gone") is None


def test_a_store_that_is_away_is_not_a_channel_that_is_gone(held: Held) -> None:
    held.driven.failing[ReadHeads] = StorageUnavailable()
    _, error = held.hold()
    assert isinstance(error, StorageUnavailable)
    assert held.driven.leftovers() == {}


def test_two_that_hold_a_channel_at_once_share_its_opening(held: Held) -> None:
    heads = held.driven.hold(ReadHeads)
    first, second = held.hold(), held.hold()
    heads.release()
    assert first == second == [{held.channel}, None]
    assert held.driven.count(ReadHeads) == 1


def test_an_opening_that_fails_fails_for_all_who_share_it(held: Held) -> None:
    heads = held.driven.hold(ReadHeads)
    ends = [held.hold(), held.hold()]
    heads.fail()
    assert [type(error) for _, error in ends] == [StorageUnavailable] * 2
    assert held.driven.leftovers() == {}


def test_one_who_gives_up_an_opening_takes_it_from_nobody(held: Held) -> None:
    heads = held.driven.hold(ReadHeads)
    leaver = held.driven.prepare(held.driven.stream(held.user, held.channel))
    stayers = [held.driven.prepare(held.driven.stream(held.user, held.channel)) for _ in range(3)]
    held.driven.cancel(leaver)
    assert held.driven.prepared == {}
    heads.release()
    assert held.driven.prepared == dict.fromkeys(stayers)
    assert held.driven.count(ReadHeads) == 2, "one of those who are left opens it for all"


def test_holding_while_it_is_unsubscribed_ends_subscribed(held: Held) -> None:
    """What is asked of the bus is asked in the order in which it is to be."""
    held.hold()
    held.driven.hold(UnsubscribeChannels)
    held.unfollow()
    held.hold()
    wire = [type(effect) for effect in held.driven.asked if isinstance(effect, SubscribeChannels | UnsubscribeChannels)]
    assert wire == [SubscribeChannels, UnsubscribeChannels, SubscribeChannels]


def test_of_many_that_are_let_go_those_taken_up_again_stay_subscribed(held: Held) -> None:
    many = [f"c{number}" for number in range(2 * MAX_CHANNELS_AT_ONCE)]
    held.driven.answers[ReadHeads] = lambda effect: dict.fromkeys(effect.channel_ids, Head(0))
    held.hold(*many)
    slow = held.driven.hold(UnsubscribeChannels)
    held.unfollow(*many)
    held.hold(many[-1])
    slow.release(1)
    held.driven.let_pass(UnsubscribeChannels)
    assert held.driven.wire == {many[-1]}


# --- a channel that is new -----------------------------------------------------------------------


def test_a_new_channel_is_followed_from_its_first_event_on(held: Held) -> None:
    held.driven.elsewhere.append(held.channel)
    held.channels.follow_new(held.channel)
    held.driven.perform_actions()
    assert held.driven.wire == {held.channel}
    held.driven.sleep(GAP_GRACE_SECS)
    assert held.head == 1
    held.unfollow()
    assert held.driven.leftovers() == {}


def test_a_new_channel_whose_head_cannot_be_read_waits_for_its_tail_check(held: Held) -> None:
    held.driven.failing[ReadHeads] = StorageUnavailable()
    held.driven.elsewhere.append(held.channel)
    held.channels.follow_new(held.channel)
    held.driven.sleep(1)
    assert held.head == 0
    held.driven.failing.clear()
    held.check()
    held.driven.sleep(GAP_GRACE_SECS)
    assert held.head == 1
    assert held.driven.defects == []


@pytest.mark.parametrize("ends", ["well", "outage", "cancel"])
def test_a_new_channel_that_a_stream_is_opening_is_followed_however_that_ends(held: Held, ends: str) -> None:
    heads = held.driven.hold(ReadHeads)
    ticket = held.driven.prepare(held.driven.stream(held.user, held.channel))
    event = held.driven.elsewhere.append(held.channel)
    held.channels.follow_new(held.channel)
    held.driven.perform_actions()
    match ends:
        case "cancel":
            held.driven.cancel(ticket)
        case "outage":
            heads.fail()
    held.driven.let_pass(ReadHeads)
    held.driven.deliver(event)
    held.driven.sleep(GAP_GRACE_SECS)
    assert held.head == 1
    assert held.driven.replica.counters.undelivered == 1, "it was released, and not passed over"
    if ends == "well":
        held.driven.replica.abandon(held.driven.stream(held.user, held.channel), now=held.driven.now)
    held.unfollow()
    assert held.driven.leftovers() == {}


# --- what is heard -------------------------------------------------------------------------------


def test_events_come_in_order_and_once(held: Held) -> None:
    socket = held.driven.open(held.user, held.channel)
    first, second, third = [held.driven.elsewhere.append(held.channel) for _ in range(3)]
    for event in (third, first, first, second, third):
        held.driven.deliver(event)
    held.driven.commit(held.channel)
    assert socket.sequences == [1, 2, 3, 4]
    assert held.driven.count(ReadEvents) == 0


def test_what_the_wire_lost_is_read_after_the_grace(held: Held) -> None:
    socket = held.driven.open(held.user, held.channel)
    held.driven.elsewhere.append(held.channel)
    held.driven.deliver(held.driven.elsewhere.append(held.channel))
    assert socket.sequences == []
    held.driven.sleep(GAP_GRACE_SECS)
    assert socket.sequences == [1, 2]
    counters = held.driven.replica.counters
    assert (counters.gaps, counters.backfilled) == (1, 1)


def test_what_nobody_here_follows_is_passed_over(held: Held) -> None:
    held.driven.deliver(held.driven.elsewhere.append(held.channel))
    assert held.driven.replica.counters.undelivered == 0, "no message of this channel should come here at all"
    held.driven.commit(held.channel)
    assert held.driven.replica.counters.undelivered == 1
    assert held.driven.leftovers() == {}


def test_a_malformed_event_is_a_line_in_the_log(held: Held) -> None:
    held.hold()
    for payload in (b"", b"{}", b'{"sequence":"x"}', b'{"sequence":null}', b"\xff"):
        held.driven.replica.channel_message(held.channel, payload, now=held.driven.now)
    held.driven.perform_actions()
    assert held.driven.lines == ["an event from another replica is malformed"] * 5
    assert held.driven.defects == []


def test_a_feed_let_go_while_it_reads_the_log_releases_nothing(held: Held) -> None:
    """Another one of the same channel stands further on by then."""
    held.hold()
    for _ in range(2):
        held.driven.elsewhere.append(held.channel)
    reads = held.driven.hold(ReadEvents)
    held.check()
    held.driven.sleep(GAP_GRACE_SECS)
    assert len(reads.queries) == 1
    held.unfollow()
    socket = held.driven.open(held.user, held.channel)
    reads.release()
    assert socket.sequences == []
    assert held.driven.hub.head(held.channel) == 2
    held.driven.commit(held.channel)
    assert socket.sequences == [3]
    assert held.driven.defects == []


def test_while_readers_are_crowded_their_channel_waits_in_the_log(held: Held) -> None:
    driven = held.driven = Driven(capacity=8)
    user = driven.elsewhere.user()
    channel = driven.elsewhere.channel(user)
    socket = driven.open(user, channel)
    driven.flushing = False
    while driven.replica.has_room(channel):
        driven.commit(channel)
    published = driven.hub.head(channel)
    for _ in range(5):
        driven.commit(channel)
    driven.sleep(1)
    assert driven.hub.head(channel) == published
    assert driven.count(ReadEvents) == 0, "nothing is read that could not be given"
    driven.flushing = True
    driven.flush()
    driven.sleep(ROOM_LOOK_SECS)
    assert socket.sequences == list(range(1, published + 6))
    assert socket.closed is None


# --- tails ---------------------------------------------------------------------------------------


def test_what_was_stored_here_does_not_put_the_tail_check_off(held: Held) -> None:
    held.hold()
    held.driven.commit(held.channel)
    held.driven.elsewhere.append(held.channel)
    held.check()
    held.driven.sleep(GAP_GRACE_SECS)
    assert held.head == 2


def test_a_repeat_does_not_put_it_off_and_news_does(held: Held) -> None:
    held.hold()
    first = held.driven.elsewhere.append(held.channel)
    held.driven.deliver(first)
    held.driven.elsewhere.append(held.channel)
    asked = held.driven.count(ReadHeads)
    held.check()
    assert held.driven.count(ReadHeads) == asked, "the bus was heard a moment ago"
    held.driven.deliver(first)
    held.check()
    held.driven.sleep(GAP_GRACE_SECS)
    assert held.head == 2


def test_all_quiet_channels_are_asked_for_in_one_question(held: Held) -> None:
    others = [held.driven.elsewhere.channel(held.user) for _ in range(3)]
    held.hold(held.channel, *others)
    asked = held.driven.count(ReadHeads)
    held.check()
    assert held.driven.count(ReadHeads) == asked + 1
    held.check()
    assert held.driven.count(ReadHeads) == asked + 1, "no channel at two checks in a row"


def test_a_channel_that_is_gone_waits_for_its_control_record(held: Held) -> None:
    socket = held.driven.open(held.user, held.channel)
    held.driven.commit(held.channel)
    held.driven.elsewhere.perform(DeleteChannel(author=Author(held.user), channel_id=held.channel, now_ms=1))
    held.check(everything=True)
    assert socket.closed is None
    assert held.driven.lines == []


@pytest.mark.parametrize("stale", [1, 2])
def test_a_log_that_went_back_is_believed_at_the_second_reading(held: Held, stale: int) -> None:
    socket = held.driven.open(held.user, held.channel)
    for _ in range(3):
        held.driven.commit(held.channel)
    readings = [{held.channel: Head(1)}] * stale + [{held.channel: Head(3)}]
    held.driven.answers[ReadHeads] = lambda effect: readings.pop(0)
    held.check()
    if stale == 1:
        assert socket.closed is None
        assert held.driven.lines == []
        return
    assert socket.closed is not None
    assert (socket.closed.code, socket.closed.reason) == (CloseCode.SERVICE_RESTART, reasons.LOG_WENT_BACK)
    assert held.driven.lines == ["the log of a channel went back: its streams start again"]


def test_after_a_log_went_back_its_channel_goes_on_from_there(held: Held) -> None:
    held.hold()
    ended = held.driven.open(held.user, held.channel)
    for _ in range(3):
        held.driven.commit(held.channel)
    held.driven.elsewhere.lose_events(held.channel, 1)
    held.check()
    assert ended.closed is not None
    assert held.head == 1
    after = held.driven.open(held.user, held.channel)
    held.driven.commit(held.channel)
    assert after.sequences == [2]


def test_an_empty_channel_restarted_closes_nobody(held: Held) -> None:
    socket = held.driven.open(held.user, held.channel)
    held.driven.elsewhere.renew_epochs()
    held.driven.run(held.channels.restart_all())
    assert socket.closed is None
    held.driven.elsewhere.append(held.channel)
    held.check()
    held.driven.sleep(GAP_GRACE_SECS)
    assert socket.sequences == [1]


def test_heads_read_before_a_restart_are_read_again(held: Held) -> None:
    """A channel that is being opened while all begin anew is not begun at a place in the log of before."""
    for _ in range(3):
        held.driven.elsewhere.append(held.channel)
    heads = held.driven.hold(ReadHeads, early=True)
    ended = held.hold()
    held.driven.elsewhere.lose_events(held.channel, 1)
    held.driven.elsewhere.renew_epochs()
    held.driven.run(held.channels.restart_all())
    heads.release(1)
    assert ended == []
    held.driven.let_pass(ReadHeads)
    assert ended == [{held.channel}, None]
    assert held.head == 1


def test_a_restart_that_fails_leaves_every_channel_followed(held: Held) -> None:
    held.hold()
    held.driven.commit(held.channel)
    held.driven.elsewhere.renew_epochs()
    held.driven.failing[ReadHeads] = StorageUnavailable()
    _, error = held.driven.run(held.channels.restart_all())
    assert isinstance(error, StorageUnavailable)
    held.driven.failing.clear()
    held.driven.commit(held.channel)
    assert held.head == 2
