"""The two state machines as tables: whole, and true for any pair of a phase and an input."""

from __future__ import annotations

import json
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from openguild_proto.gateway.actions import Authenticate, Close, CountReads, Run, Subscribe
from openguild_proto.gateway.client import GatewayClient
from openguild_proto.gateway.client_events import Ended
from openguild_proto.gateway.client_phases import CLIENT_PHASES, CLIENT_TRANSITIONS, ClientDeadline, ClientPhase
from openguild_proto.gateway.close_codes import GatewayClose
from openguild_proto.gateway.encoding import Encoding
from openguild_proto.gateway.frames import ClientFrame, Post, ServerFrame
from openguild_proto.gateway.phases import MAY_RUN, PHASES, TRANSITIONS, Deadline, Input, Phase
from openguild_proto.gateway.server import GatewayServer
from openguild_proto.http.message import Response
from tests.proto.gateway.frames import CHANNEL, FRAMES, SERVER_FRAMES
from tests.proto.gateway.test_client import Scripted
from tests.support.gateway import Replica, granted, log_name


def test_the_tables_are_whole() -> None:
    assert set(TRANSITIONS) == set(PHASES) == set(Phase)
    assert set().union(*MAY_RUN.values()) == set(Deadline)
    peer = {Input.AUTH, Input.REQUEST, Input.HEARTBEAT, Input.VIOLATION, Input.CLOSE, Input.DRAIN}
    for phase, steps in TRANSITIONS.items():
        assert peer <= set(steps), phase
    assert set(TRANSITIONS[Phase.CLOSED].values()) == {Phase.CLOSED}
    assert set(CLIENT_TRANSITIONS) == set(CLIENT_PHASES) == set(ClientPhase)
    assert {name for row in CLIENT_PHASES.values() for name in row.deadlines} == set(ClientDeadline)


def test_a_client_that_is_closed_before_its_start_begins_nothing() -> None:
    client = GatewayClient(Encoding.JSON, jitter=lambda: 0.0, random_bytes=bytes)
    client.close()
    client.start("token", now=0.0)
    assert list(iter(client.next_event, None)) == [Ended(None, "closed")]
    assert client.phase is ClientPhase.ENDED


def test_every_frame_is_tried() -> None:
    tags = {frame.__struct_config__.tag for union in (ClientFrame, ServerFrame) for frame in union.__args__}
    assert tags == {frame.get("type") for frame in (*FRAMES, *SERVER_FRAMES)} - {"unknown", None}


class Carried:
    """A server whose actions are collected, to be answered or not."""

    def __init__(self) -> None:
        self.replica = Replica()
        self.server = GatewayServer(self.replica.feeds, Encoding.JSON, handle=0, wake=lambda: None, now=0.0, wall_ms=0)
        self.now = 0.0
        self.asked: list[Any] = []
        self.closes: list[GatewayClose] = []

    def collect(self) -> None:
        while (action := self.server.next_action()) is not None:
            if isinstance(action, Close):
                self.closes.append(action.code)
            elif isinstance(action, (Authenticate, CountReads, Subscribe, Run)):
                self.asked.append(action)

    def answer(self, which: int, how: int) -> None:
        """Answer something, perhaps twice."""
        action = self.asked[which % len(self.asked)]
        match action:
            case Authenticate(number=number) if how % 3 == 0:
                self.server.authenticated(number, granted(ends_at=self.now + 90.0), self.now)
            case Authenticate(number=number) if how % 3 == 1:
                self.server.auth_refused(number)
            case Authenticate(number=number):
                self.server.auth_unchecked(number)
            case CountReads(number=number):
                self.server.reads_counted(number, (None, 0.0, 7.0)[how % 3], self.now)
            case Subscribe(number=number, logs=logs):
                self.server.subscribed(number, self.replica.open_feed(logs[0]))
            case Run(number=number):
                self.server.answered(number, Response.json({}))


@pytest.mark.parametrize(
    ("how", "answer"), [(0, {"type": "ok"}), (1, {"code": "unauthorized"}), (2, {"code": "database_unavailable"})]
)
def test_an_auth_before_the_drain_is_answered(how: int, answer: dict[str, str]) -> None:
    driver = Carried()
    driver.server.receive('{"type": "auth", "token": "t"}', 0.0)
    driver.collect()
    driver.answer(0, 0)
    driver.server.receive('{"type": "auth", "ref": 7, "token": "t2"}', 0.0)
    driver.server.drain(900, 0.0)
    driver.collect()
    while data := driver.server.next_write(10_000):  # what came before
        driver.server.sent(len(data))
    driver.answer(1, how)
    frame = json.loads(driver.server.next_write(10_000)[2:])
    assert frame.items() >= {"ref": 7, **answer}.items()
    assert driver.server.phase is Phase.DRAINING


STEP = st.one_of(
    st.tuples(st.just("frame"), st.integers(0, len(FRAMES) - 1), st.just(0)),
    st.tuples(st.just("answer"), st.integers(0, 50), st.integers(0, 2)),
    st.tuples(st.just("pass"), st.integers(0, 40), st.just(0)),
    st.tuples(st.just("write"), st.integers(1, 900), st.integers(0, 900)),
    st.tuples(st.sampled_from(["drain", "close", "left", "took", "gone"]), st.just(0), st.just(0)),
    st.tuples(st.just("bytes"), st.integers(0, 255), st.just(0)),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(STEP, max_size=40))
def test_any_input_in_any_phase(steps: list[tuple[str, int, int]]) -> None:
    driver = Carried()
    server = driver.server
    for kind, one, two in steps:
        before = server.phase
        match kind:
            case "frame":
                server.receive(Encoding.JSON.encode(FRAMES[one]).decode(), driver.now)  # type: ignore[arg-type]  # a dict will do
            case "bytes":
                server.receive(bytes([one]), driver.now)
            case "answer" if driver.asked:
                driver.answer(one, two)
            case "pass":
                driver.now += one
                server.handle_deadline(driver.now)
                deadline = server.next_deadline()
                assert deadline is None or deadline > driver.now
            case "write":
                data = server.next_write(one)
                if data:
                    rest = server.sent(min(two, len(data)))
                    assert len(rest) < len(data) or two == 0
            case "drain":
                server.drain(900, driver.now)
            case "close":
                server.close(GatewayClose.SESSION_ENDED)
            case "took":
                server.took_bytes(driver.now)
            case "left":
                server.left()
            case "gone":
                for feed in driver.replica.feeds.feeds_of(log_name(1)):
                    server.gone(feed, "deleted")
        driver.collect()
        if kind != "pass":  # several deadlines may have passed
            assert server.phase in {before, *TRANSITIONS[before].values()}
        if server.phase is Phase.CLOSED:
            assert server.next_deadline() is None
    assert len(driver.closes) <= 1
    assert (len(driver.closes) == 1) <= (server.phase is Phase.CLOSED)


CLIENT_STEP = st.one_of(
    st.tuples(st.just("frame"), st.integers(0, len(SERVER_FRAMES) - 1)),
    st.tuples(st.just("lost"), st.sampled_from([*GatewayClose, 1006, None])),
    st.tuples(st.just("pass"), st.integers(0, 40)),
    st.tuples(st.sampled_from(["connected", "token", "follow", "unfollow", "send", "close"]), st.just(0)),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(CLIENT_STEP, max_size=40))
def test_a_client_survives_any_input_in_any_phase(steps: list[tuple[str, Any]]) -> None:
    scripted = Scripted()
    client = scripted.client
    ended = 0
    for kind, value in steps:
        before = client.phase
        match kind:
            case "frame":
                client.received(Encoding.JSON.encode(SERVER_FRAMES[value]).decode(), scripted.now)  # type: ignore[arg-type]  # a dict stands for the frame
            case "lost":
                client.disconnected(value, "r", scripted.now)
            case "pass":
                scripted.now += value
                client.handle_deadline(scripted.now)
                deadline = client.next_deadline()
                assert deadline is None or deadline > scripted.now
            case "connected":
                client.connected(scripted.now)
            case "token":
                client.set_token("t2", scripted.now)
            case "follow":
                client.follow(log_name(1))
            case "unfollow":
                client.unfollow(log_name(1))
            case "send":
                client.send(Post(0, CHANNEL, content="x"))
            case "close":
                client.close()
        ended += sum(type(event).__name__ == "Ended" for event in scripted.events())
        messages = client.messages_to_send()
        if client.phase not in {ClientPhase.AUTHENTICATING, ClientPhase.OPEN, ClientPhase.DRAINING}:
            assert not messages
        assert before is not ClientPhase.ENDED or client.phase is ClientPhase.ENDED
    assert ended == (client.phase is ClientPhase.ENDED)
