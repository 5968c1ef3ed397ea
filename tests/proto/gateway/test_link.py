"""Server and clients over links that lose what is under way when they are cut: everything in order, once."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given, settings

from openguild_proto.gateway import client_events as told
from openguild_proto.gateway.client_logs import ResumePosition
from openguild_proto.gateway.client_phases import ClientPhase
from openguild_proto.gateway.encoding import Encoding
from openguild_proto.gateway.frames import Post
from openguild_proto.http.message import Request, Response
from tests.support.gateway import EPOCH, Replica, log_name
from tests.support.gateway_devices import Device, pass_time, settle

LOGS = [log_name(number) for number in range(3)]
CHANNEL = LOGS[0].removeprefix("channel:")

STEP = st.one_of(
    st.tuples(st.just("publish"), st.integers(0, 2), st.integers(1, 9)),
    st.tuples(st.just("flush"), st.just(0), st.just(0)),
    st.tuples(st.just("upload"), st.integers(0, 1), st.integers(1, 9)),
    st.tuples(st.just("download"), st.integers(0, 1), st.integers(1, 900)),
    st.tuples(st.just("cut"), st.integers(0, 1), st.just(0)),
    st.tuples(st.just("answer"), st.integers(0, 9), st.just(0)),
    st.tuples(st.just("pass"), st.integers(1, 400), st.just(0)),
    st.tuples(st.just("post"), st.integers(0, 1), st.just(0)),
    st.tuples(st.just("drain"), st.integers(0, 1), st.integers(0, 900)),
    st.tuples(st.just("unreadable"), st.integers(0, 1), st.just(0)),
    st.tuples(st.just("unfollow"), st.integers(0, 1), st.integers(0, 2)),
)


class Posts:
    """What is posted once under each key is stored once, into the first log."""

    def __init__(self, replica: Replica) -> None:
        self.replica = replica
        self.stored: dict[str, int] = {}

    def __call__(self, request: Request) -> Response:
        key = request.header("idempotency-key") or ""
        if key not in self.stored:
            self.replica.publish(LOGS[0])
            self.stored[key] = len(self.replica.logs[LOGS[0]])
        return Response.json({"sequence": self.stored[key]})


@settings(max_examples=300, deadline=None)
@given(st.lists(STEP, max_size=80), st.sampled_from(Encoding), st.sampled_from([300, 2_000, 1 << 30]))
def test_two_devices_get_everything_in_order_and_once(
    steps: list[tuple[str, int, int]], encoding: Encoding, room: int
) -> None:
    replica = Replica(ring_events=4, encoding=encoding)
    posts = replica.run = Posts(replica)
    for log in LOGS:
        replica.publish(log, 3)
    devices = [Device(replica, seed=1, room=room), Device(replica, seed=2, room=room)]
    unfollowed: set[tuple[int, str]] = set()
    refs: list[list[int]] = [[], []]
    for device in devices:
        for log in LOGS:
            device.client.follow(log, ResumePosition(EPOCH, 1))
        device.start()
    replica.held = []
    for kind, which, count in steps:
        match kind:
            case "publish":
                replica.publish(LOGS[which], count, nbytes=20 * count)
            case "flush":
                replica.flush()
            case "upload":
                devices[which].upload(count)
            case "download":
                devices[which].download(count)
            case "cut":
                devices[which].cut()
            case "answer" if replica.held:
                replica.held.pop(which % len(replica.held))()
            case "pass":
                replica.now += which / 10
                pass_time(replica, *devices)
            case "post":
                refs[which].append(devices[which].client.send(Post(0, CHANNEL, content="x")))
            case "drain":
                socket = devices[which].socket
                if socket is not None:
                    socket.server.drain(count, replica.now)
            case "unreadable":
                replica.readable = bool(which)
            case "unfollow":
                devices[which].client.unfollow(LOGS[count])
                unfollowed.add((which, LOGS[count]))
        for socket in list(replica.sockets):
            socket.pump()
        for device in devices:
            device.step()
    replica.readable = True
    settle(replica, *devices)
    for number, device in enumerate(devices):
        assert device.client.phase is ClientPhase.OPEN
        assert device.client.faults == (0, 0)
        for log in LOGS:
            seen = device.delivered(log)
            assert seen == list(range(2, 2 + len(seen)))
            if (number, log) not in unfollowed:
                assert seen[-1] == len(replica.logs[log]) == device.client.places[log].sequence
        assert all(event.recovered for event in device.told(told.Followed))
        answers = {event.ref: event.result["sequence"] for event in device.told(told.Answered)}
        assert list(answers) == refs[number]
        assert list(answers.values()) == sorted(answers.values()), "in the order in which they were posted"
        assert device.client.pending == 0
    assert len(posts.stored) == sum(map(len, refs))
    for device in devices:
        device.client.close()
        device.step()
    assert not replica.sockets
    assert set(replica.holds.values()) <= {0}
    assert not any(replica.feeds.feeds_of(log) for log in LOGS)


def test_a_log_that_went_back_is_read_anew() -> None:
    replica = Replica()
    replica.publish(LOGS[0], 6)
    device = Device(replica)
    device.client.follow(LOGS[0], ResumePosition(EPOCH, 4))
    device.start()
    settle(replica, device, until=1.0)
    assert device.delivered(LOGS[0]) == [5, 6]
    (feed,) = replica.feeds.feeds_of(LOGS[0])
    replica.logs[LOGS[0]] = replica.logs[LOGS[0]][:3]
    replica.epochs[LOGS[0]] = EPOCH + 1
    replica.feeds.retire(feed)
    assert replica.open_feed(LOGS[0]) is not feed, "newcomers do not wait for the others"
    for follower in list(replica.feeds.followers(feed)):
        socket = replica.socket(follower.handle)
        socket.server.gone(feed, "restarted")
        socket.pump()
    settle(replica, device, until=1.0)
    assert not feed.is_followed
    *_, followed = device.told(told.Followed)
    assert (followed.epoch, followed.after, followed.recovered) == (EPOCH + 1, 3, False)
    replica.publish(LOGS[0])
    settle(replica, device, until=1.0)
    assert device.delivered(LOGS[0]) == [5, 6, 4]


def test_a_rolling_restart_loses_and_repeats_nothing() -> None:
    replica = Replica(ring_events=16)
    devices = [Device(replica, seed=seed) for seed in range(6)]
    for device in devices:
        device.client.follow(LOGS[0], ResumePosition(EPOCH, 0))
        device.start()
    settle(replica, *devices, until=1.0)
    for place, socket in enumerate(list(replica.sockets)):
        socket.server.drain(100 * place, replica.now)
        replica.publish(LOGS[0], 2)
        settle(replica, *devices, until=0.05)
    settle(replica, *devices, until=5.0)
    for device in devices:
        assert device.delivered(LOGS[0]) == list(range(1, 13))
        assert len(device.told(told.Connect)) == 2
