"""Slow readers of many logs: turns, falling off the ring and coming back, nothing kept for them."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from openguild_proto.errors import LocalProtocolError
from openguild_proto.gateway.encoding import Encoding
from openguild_proto.gateway.feeds import Feed
from openguild_proto.gateway.following import FOLLOWING, STEPS, Following, Step
from openguild_proto.gateway.frames import Ev, Lagging, Live
from openguild_proto.limits import PAGE_RETRY_SECS
from tests.support.gateway import EPOCH, Replica, Socket, log_name, opened, wire

ONE, TWO, THREE = log_name(1), log_name(2), log_name(3)


def following(replica: Replica, *logs: str, room: int = 1 << 30, after: int | None = None) -> Socket:
    socket = opened(replica)
    place = {} if after is None else {"after": after}
    socket.tell({"type": "sub", "ref": 1, "logs": [{"log": log, **place} for log in logs]})
    if after is None:
        socket.heard()
    socket.room = room
    return socket


def sequences(socket: Socket, log: str) -> list[int]:
    return [frame.seq for frame in socket.heard() if isinstance(frame, Ev) and frame.log == log]


def test_an_idle_socket_is_served_by_the_flush_alone() -> None:
    replica = Replica()
    socket = following(replica, ONE, TWO)
    before = socket.delivered_by_flush
    for _ in range(30):
        replica.publish(ONE)
        replica.flush()
    assert socket.delivered_by_flush == before + 30
    assert sequences(socket, ONE) == list(range(1, 31))
    assert socket.reads == 0


def test_an_event_is_encoded_once_for_all_sockets_of_an_encoding() -> None:
    replica = Replica()
    one, two = following(replica, ONE, TWO), following(replica, ONE)
    two.tell({"type": "sub", "ref": 99, "logs": [{"log": THREE}]})
    for socket in (one, two):
        socket.heard()
    replica.publish(ONE)
    replica.flush()
    assert bytes(one.wire) == bytes(two.wire) == Encoding.JSON.event_message(ONE, EPOCH, 1, wire(ONE, 1))


def test_a_reader_that_falls_off_is_told_once_and_comes_back() -> None:
    replica = Replica(ring_events=8)
    socket = following(replica, ONE, room=0)
    replica.publish(ONE, 3)
    replica.flush()
    replica.publish(ONE, 40)
    replica.flush()
    socket.make_room(1 << 20)
    frames = socket.heard()
    assert frames[0] == Lagging(ONE, 43)
    assert [frame.seq for frame in frames if isinstance(frame, Ev)] == list(range(1, 44))
    assert frames.count(Lagging(ONE, 43)) == frames.count(Live(ONE)) == 1
    live = frames.index(Live(ONE))
    assert live == 1 + 35, "the ring has the last eight"
    replica.publish(ONE)
    replica.flush()
    assert sequences(socket, ONE) == [44]
    assert socket.server.subscriptions.state(feed_of(replica, ONE)) is Following.LIVE


def feed_of(replica: Replica, log: str):  # type: ignore[no-untyped-def]  # Feed, which is open
    feed = replica.feeds.get(log, replica.encoding)
    assert feed is not None
    return feed


def test_nothing_is_kept_for_a_reader_that_takes_nothing() -> None:
    replica = Replica(ring_events=8)
    socket = following(replica, ONE, room=10)
    for _ in range(100):
        replica.publish(ONE, 10, nbytes=200)
        replica.flush()
    assert len(socket.outbox) < 400, "the rest of one message"
    assert socket.reads == 0
    while replica.feeds.gates[socket.handle] or socket.outbox:
        socket.make_room(97)
    assert sequences(socket, ONE) == list(range(1, 1_001))


def test_a_page_is_not_kept_while_the_socket_takes_nothing() -> None:
    replica = Replica(ring_events=2)
    replica.publish(ONE, 30, nbytes=100)
    socket = following(replica, ONE, after=0, room=0)
    assert sequences(socket, ONE) == list(range(1, 31))
    pages = replica.pages
    slow = opened(replica, room=200)
    slow.tell({"type": "sub", "ref": 1, "logs": [{"log": ONE, "after": 0}]})
    assert slow.server.subscriptions.state(feed_of(replica, ONE)) is Following.REPLAYING
    slow.make_room(1 << 20)
    assert replica.pages == pages + 2, "it is read again"
    assert sequences(slow, ONE) == list(range(1, 31))


def test_a_flood_starves_no_small_log() -> None:
    replica = Replica(ring_events=2_000)
    socket = following(replica, ONE, TWO, THREE, room=0)
    replica.publish(ONE, 1_000, nbytes=300)
    replica.publish(TWO, 2)
    replica.publish(THREE, 2)
    replica.flush()
    socket.make_room(20_000)
    heard = socket.heard()
    small = [place for place, frame in enumerate(heard) if isinstance(frame, Ev) and frame.log != ONE]
    assert len(small) == 4
    flood_before = sum(isinstance(frame, Ev) and frame.log == ONE for frame in heard[: small[-1]])
    assert flood_before <= 4_096 // 300, "one turn"


def test_answers_come_before_events() -> None:
    replica = Replica(ring_events=2_000)
    socket = following(replica, ONE, room=0)
    replica.publish(ONE, 100)
    replica.flush()
    socket.tell({"type": "read", "ref": 7, "channel_id": ONE.removeprefix("channel:")})
    socket.make_room(1 << 20)
    kinds = [type(frame).__name__ for frame in socket.heard()]
    assert kinds == ["Ok", *["Ev"] * 100]


def test_a_log_that_cannot_be_read_rests() -> None:
    replica = Replica(ring_events=2)
    replica.publish(ONE, 9)
    replica.readable = False
    socket = opened(replica)
    socket.tell({"type": "sub", "ref": 1, "logs": [{"log": ONE, "after": 0}]})
    socket.tell({"type": "sub", "ref": 2, "logs": [{"log": TWO}]})
    replica.publish(TWO)
    replica.flush()
    assert socket.reads == 1
    assert [frame.log for frame in socket.heard() if isinstance(frame, Ev)] == [TWO], "the others go on"
    replica.readable = True
    replica.now += PAGE_RETRY_SECS
    socket.server.handle_deadline(replica.now)
    socket.pump()
    assert sequences(socket, ONE) == list(range(1, 10))


def test_a_late_page_of_a_log_that_was_moved_is_ignored() -> None:
    replica = Replica(ring_events=2)
    replica.publish(ONE, 9)
    socket = opened(replica)
    replica.held = []
    socket.tell({"type": "sub", "ref": 1, "logs": [{"log": ONE, "after": 0}]})
    replica.held.pop()()
    socket.pump()
    (page,) = replica.held
    replica.held = None
    socket.tell({"type": "sub", "ref": 2, "logs": [{"log": ONE, "after": 4}]})
    page()
    socket.pump()
    assert sequences(socket, ONE) == [5, 6, 7, 8, 9]


def test_redacted_events_are_rewritten_in_every_encoding() -> None:
    for encoding in Encoding:
        replica = Replica(encoding=encoding)
        socket = following(replica, ONE, room=0)
        replica.publish(ONE, 3)
        assert replica.feeds.rewrite(ONE, lambda event: b'{"gone":true}' if b'"n":2' in event else None) == 1
        replica.flush()
        socket.make_room(1 << 20)
        events = [replica.encoding.json_of(frame.event) for frame in socket.heard() if isinstance(frame, Ev)]
        assert events == [wire(ONE, 1), b'{"gone":true}', wire(ONE, 3)]
    assert replica.feeds.rewrite(TWO, lambda _: b"") == 0


def test_misuse_is_refused() -> None:
    replica = Replica()
    socket = following(replica, ONE)
    feed = feed_of(replica, ONE)
    with pytest.raises(LocalProtocolError):
        socket.server.subscriptions.begin(feed, 1)
    with pytest.raises(LocalProtocolError):
        socket.server.subscriptions.sent(1)
    with pytest.raises(LocalProtocolError):
        replica.feeds.close(feed)
    with pytest.raises(LocalProtocolError):
        replica.feeds.join(socket.handle, socket.server.subscriptions)
    with pytest.raises(LocalProtocolError):
        replica.feeds.publish(ONE, 5, b"{}")


def test_the_table_of_following_is_whole() -> None:
    assert set(FOLLOWING) == set(STEPS) == set(Following)
    for state, steps in STEPS.items():
        for step, target in steps.items():
            if step is Step.FELL_OFF:
                assert FOLLOWING[state].in_ring
                assert not FOLLOWING[target].in_ring
            elif step is Step.REACHED:
                assert FOLLOWING[target].in_ring
                assert not FOLLOWING[state].in_ring
            else:
                assert FOLLOWING[target].in_ring is FOLLOWING[state].in_ring


STEP = st.one_of(
    st.tuples(st.just("publish"), st.integers(0, 3), st.integers(1, 12)),
    st.tuples(st.just("room"), st.integers(0, 2), st.integers(1, 700)),
    st.tuples(st.just("flush"), st.just(0), st.just(0)),
    st.tuples(st.just("move"), st.integers(0, 3), st.integers(0, 40)),
    st.tuples(st.just("unsub"), st.integers(0, 3), st.just(0)),
    st.tuples(st.just("answer"), st.integers(0, 9), st.just(0)),
    st.tuples(st.just("eph"), st.integers(0, 3), st.just(0)),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(STEP, max_size=60), st.sampled_from(Encoding))
def test_three_readers_of_four_logs_get_everything_in_order(
    steps: list[tuple[str, int, int]], encoding: Encoding
) -> None:
    replica = Replica(ring_events=4, encoding=encoding)
    names = [log_name(number) for number in range(4)]
    sockets = [following(replica, *names, room=room) for room in (0, 300, 1 << 30)]
    replica.held = []
    expected = {(socket.handle, log): 0 for socket in sockets for log in names}
    lagging: dict[tuple[int, str], bool] = {}

    def check() -> None:
        for socket in sockets:
            for frame in socket.heard():
                key = (socket.handle, getattr(frame, "log", ""))
                match frame:
                    case Ev(seq=seq, epoch=epoch):
                        assert epoch == EPOCH
                        assert seq == expected[key] + 1
                        expected[key] = seq
                    case Lagging():
                        assert not lagging.get(key)
                        lagging[key] = True
                    case Live():
                        assert lagging.pop(key)
                for line in getattr(frame, "logs", ()):
                    expected[socket.handle, line.log] = line.after
                    lagging.pop((socket.handle, line.log), None)
            if not replica.feeds.gates[socket.handle] and not socket.outbox:
                assert socket.server.next_write(1) == b""

    for kind, which, count in steps:
        match kind:
            case "publish":
                replica.publish(names[which], count, nbytes=count * 3)
            case "room":
                sockets[which].make_room(count)
            case "flush":
                replica.flush()
            case "move":
                sockets[which % 3].tell({"type": "sub", "ref": 5, "logs": [{"log": names[which], "after": count}]})
            case "unsub":
                sockets[which % 3].tell({"type": "unsub", "logs": [names[which]]})
            case "answer" if replica.held:
                replica.held.pop(which % len(replica.held))()
            case "eph":
                list(replica.feeds.ephemeral(names[which], "typing", {"u": b"{}"}))
        for socket in sockets:
            socket.pump()
        check()
    for socket in sockets:
        socket.make_room(1)
    while (
        replica.held or replica.dirty or any(replica.feeds.gates[socket.handle] or socket.outbox for socket in sockets)
    ):
        while replica.held:
            replica.held.pop()()
            for socket in sockets:
                socket.pump()
        replica.flush()
        for socket in sockets:
            socket.make_room(1 << 16)
        check()
    for socket in sockets:
        for log in names:
            feed = replica.feeds.get(log, encoding)
            if feed is not None and feed in socket.server.subscriptions:
                assert expected[socket.handle, log] == len(replica.logs.get(log, []))
                assert socket.server.subscriptions.state(feed) is Following.LIVE
                assert (socket.handle, log) not in lagging


def test_an_unsub_of_many_logs_looks_at_each_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever their order: with the thousand of a socket it would hold up the others for longer than a turn."""
    compared = 0

    def counted(feed: Feed, other: object) -> bool:
        nonlocal compared
        compared += 1
        return feed is other

    replica = Replica()
    logs = [log_name(number) for number in range(200)]
    for log in logs:
        replica.publish(log, 20)
    socket, other = opened(replica, room=0), following(replica, *logs[:2])
    socket.tell({"type": "sub", "ref": 1, "logs": [{"log": log, "after": 0} for log in logs]})
    assert len(socket.server.subscriptions) == 200
    monkeypatch.setattr(Feed, "__eq__", counted)
    socket.tell({"type": "unsub", "logs": [*logs[:0:-1], logs[5]]})
    assert compared < 5 * len(logs)
    monkeypatch.undo()
    assert [feed.log for feed in socket.server.subscriptions.feeds()] == logs[:1]
    socket.make_room(1 << 20)
    assert sequences(socket, logs[0]) == list(range(1, 21))
    for client in (socket, other):
        client.leave()
    assert set(replica.holds.values()) == {0}
