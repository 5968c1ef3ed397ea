"""The NATS bus on a real nats-server: delivery and reconnects (PROTOCOL 10)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import httpx
import pytest
from structlog.testing import capture_logs

from openguild_proto.bus.topics import Topic
from openguild_runtime.bus.nats import KEEPALIVE_SECS, PING_SECS, NatsBus
from openguild_runtime.embedded import EmbeddedNats
from openguild_runtime.observability.metrics import Metrics
from tests.support.bus_handler import BusRecorder
from tests.support.proxy import Proxy
from tests.support.waiting import eventually

pytestmark = pytest.mark.anyio


@pytest.fixture
def own_nats(tmp_path: Path) -> Iterator[EmbeddedNats]:
    server = EmbeddedNats(tmp_path)
    server.start()
    yield server
    server.stop()


DATABASE = "2d2a4c9e-3c3b-4b0e-9d7c-6f6a1b0e8f11"


class Recorder(BusRecorder):
    """A bus and what it has delivered; `picky` may raise at a control message."""

    def __init__(self, bus: NatsBus) -> None:
        super().__init__()
        self.bus = bus
        self.metrics = bus._metrics
        self.answered_at: list[float] = []
        self.picky: Callable[[bytes], None] = lambda payload: None

    def broadcast_message(self, topic: Topic, payload: bytes) -> None:
        self.picky(payload)
        super().broadcast_message(topic, payload)

    def bus_answered(self) -> None:
        self.answered_at.append(anyio.current_time())


@asynccontextmanager
async def listening(
    *servers: tuple[str, str], keepalive_secs: float = KEEPALIVE_SECS, ping_secs: float = PING_SECS
) -> AsyncIterator[list[Recorder]]:
    """Connected buses, one for each (url, server name)."""
    async with anyio.create_task_group() as tasks:
        buses = [
            NatsBus(
                url, name, Metrics("0", native_ring=False), tasks, keepalive_secs=keepalive_secs, ping_secs=ping_secs
            )
            for url, name in servers
        ]
        recorders = [Recorder(bus) for bus in buses]
        for recorder in recorders:
            await recorder.bus.start(recorder)
            recorder.bus.join(DATABASE)
        await eventually(lambda: all(bus.connected for bus in buses))
        yield recorders
        for bus in buses:
            await bus.aclose()


async def test_only_subscribers_receive_a_channel(nats_server: EmbeddedNats) -> None:
    async with listening((nats_server.url, "one"), (nats_server.url, "one"), (nats_server.url, "two")) as (a, b, other):
        b.bus.subscribe(["c1"])
        other.bus.subscribe(["c1"])
        b.bus.subscribe(["c1"])  # safe to repeat
        await anyio.to_thread.run_sync(lambda: None)
        a.bus.broadcast(Topic.CONTROL, b"everybody")
        await eventually(lambda: b.controls == [b"everybody"])
        a.bus.publish_channel("c1", b"payload")
        a.bus.publish_channel("c2", b"not for b")
        await eventually(lambda: b.events == [("c1", b"payload")])
        b.bus.unsubscribe(["c1"])
        a.bus.publish_channel("c1", b"too late")
        a.bus.broadcast(Topic.CONTROL, b"end")
        await eventually(lambda: b.controls[-1:] == [b"end"])
        assert b.events == [("c1", b"payload")]
        assert other.events == other.controls == [], "another server's name is another wire"


async def test_reconnects_and_receives_after_a_disconnect(own_nats: EmbeddedNats) -> None:
    async with listening((own_nats.url, "one"), (own_nats.url, "one")) as (a, b):
        b.bus.subscribe(["before"])
        await anyio.to_thread.run_sync(own_nats.kill)
        await eventually(lambda: not a.bus.connected and not b.bus.connected)
        a.bus.publish_channel("before", b"lost")  # never waits, never raises
        b.bus.subscribe(["during"])
        await anyio.to_thread.run_sync(own_nats.restart)
        await eventually(lambda: a.bus.connected and b.bus.connected)
        assert (a.reconnects, b.reconnects) == (1, 1)
        for channel in ("before", "during"):
            a.bus.publish_channel(channel, b"again")
        await eventually(lambda: sorted(b.events) == [("before", b"again"), ("during", b"again")])


async def test_an_invalid_message_is_skipped(nats_server: EmbeddedNats) -> None:
    async with listening((nats_server.url, "three"), (nats_server.url, "three")) as (a, b):

        def picky(payload: bytes) -> None:
            if payload == b"bad":
                raise ValueError("not a control message")

        b.picky = picky
        a.bus.broadcast(Topic.CONTROL, b"bad")
        a.bus.broadcast(Topic.CONTROL, b"good")
        await eventually(lambda: b.controls == [b"good"])


@asynccontextmanager
async def proxied(server: EmbeddedNats, **options: int) -> AsyncIterator[tuple[Proxy, str]]:
    """A proxy before the server, and the URL through it."""
    url = httpx.URL(server.url)
    assert url.port is not None
    proxy = Proxy(url.port)
    async with anyio.create_task_group() as tasks:
        await proxy.start(tasks, **options)
        yield proxy, str(url.copy_with(port=proxy.port))
        tasks.cancel_scope.cancel()


async def test_a_connection_whose_peer_stops_reading_is_closed(nats_server: EmbeddedNats) -> None:
    async with (
        proxied(nats_server, receive_buffer=4_096) as (proxy, url),
        listening((url, "stalled"), (nats_server.url, "stalled"), keepalive_secs=0.2) as (a, b),
    ):
        a.bus.subscribe(["c1"])
        proxy.black_hole()
        for _ in range(200):
            a.bus.publish_channel("c2", bytes(32_768))
        await eventually(lambda: not a.bus.connected, what="the end of a connection that does not move")
        proxy.heal()
        await eventually(lambda: a.bus.connected)
        assert a.reconnects == 1
        await eventually(lambda: (b.bus.publish_channel("c1", b"again"), a.events)[1])
        await eventually(lambda: proxy.connections == 1, what="the socket that was given up, closed")


async def test_the_server_is_pinged_and_late_answers_count(nats_server: EmbeddedNats) -> None:
    ping_secs = 0.1
    async with proxied(nats_server) as (proxy, url), listening((url, "asked"), ping_secs=ping_secs) as (a,):
        answers = a.answered_at = []
        await eventually(lambda: len(answers) >= 2)
        assert answers[1] - answers[0] >= ping_secs
        proxy.black_hole()
        await eventually(lambda: proxy.held, what="a ping on its way, or the answer to one")
        heard = len(answers)
        await eventually(lambda: anyio.current_time() - answers[-1] > 5 * ping_secs)
        assert len(answers) == heard, "connected, and silent"
        assert a.bus.connected
        proxy.heal()
        await eventually(lambda: len(answers) >= heard + 2)
        assert a.reconnects == 0


async def test_subscriptions_change_while_connecting(nats_server: EmbeddedNats) -> None:
    async with (
        proxied(nats_server) as (proxy, url),
        listening((nats_server.url, "slow")) as (a,),
        anyio.create_task_group() as tasks,
    ):
        b = Recorder(NatsBus(url, "slow", Metrics("0", native_ring=False), tasks))
        b.bus.subscribe(["unwanted"])
        proxy.delay_secs = 0.2
        await b.bus.start(b)
        b.bus.join(DATABASE)
        await eventually(lambda: b.bus._subscriptions.of([b.bus._subjects.channel_name("unwanted")]))
        assert not b.bus.connected
        b.bus.unsubscribe(["unwanted"])
        b.bus.subscribe(["wanted"])
        await eventually(lambda: b.bus.connected)
        proxy.delay_secs = 0.0
        await eventually(lambda: (a.bus.publish_channel("wanted", b"event"), b.events)[1])
        a.bus.publish_channel("unwanted", b"event")
        a.bus.broadcast(Topic.CONTROL, b"end")
        await eventually(lambda: b.controls == [b"end"])
        assert {channel for channel, _ in b.events} == {"wanted"}
        await b.bus.aclose()


async def test_a_handler_error_is_logged_and_the_next_message_delivered(nats_server: EmbeddedNats) -> None:
    async with listening((nats_server.url, "four"), (nats_server.url, "four")) as (a, b):

        def defective(payload: bytes) -> None:
            if payload == b"first":
                raise KeyError("a defect")

        b.picky = defective
        with capture_logs() as records:
            a.bus.broadcast(Topic.CONTROL, b"first")
            a.bus.broadcast(Topic.CONTROL, b"second")
            await eventually(lambda: b.controls == [b"second"])
    assert [line["subject"] for line in records if line["log_level"] == "error"] == [
        f"openguild.four.{DATABASE}.control"
    ]


async def test_queued_messages_are_sent_before_closing(nats_server: EmbeddedNats) -> None:
    async with listening((nats_server.url, "five"), (nats_server.url, "five")) as (a, b):
        for number in range(1_000):
            a.bus.broadcast(Topic.CONTROL, b"%d" % number)
        await a.bus.aclose()
        await eventually(lambda: b.controls == [b"%d" % number for number in range(1_000)])


async def test_closing_works_while_connecting(nats_server: EmbeddedNats) -> None:
    async with proxied(nats_server) as (proxy, url), anyio.create_task_group() as tasks:
        proxy.black_hole()
        bus = NatsBus(url, "six", Metrics("0", native_ring=False), tasks)
        await bus.start(BusRecorder())
        bus.join(DATABASE)
        await eventually(lambda: proxy.connections == 1)
        await bus.aclose()
        proxy.heal()
        await eventually(lambda: proxy.connections == 0)


async def test_a_too_large_message_is_dropped_and_counted(nats_server: EmbeddedNats) -> None:
    async with listening((nats_server.url, "seven"), (nats_server.url, "seven")) as (a, b):
        b.bus.subscribe(["c1"])
        with capture_logs() as records:
            a.bus.publish_channel("c1", bytes(1_048_576 - 20), {"X-Request-Id": "r" * 20})
            a.bus.broadcast(Topic.CONTROL, b"after it")
            await eventually(lambda: b.controls == [b"after it"])
        assert [line["nbytes"] for line in records if "max_payload" in line["event"]] == [1_048_576 + 16]
        assert a.bus.connected
        assert a.reconnects == 0


async def test_databases_under_one_name_do_not_hear_each_other(nats_server: EmbeddedNats) -> None:
    """The operator is told once; no topic and no channel of the other one is delivered."""
    with capture_logs() as records:
        async with listening((nats_server.url, "eight"), (nats_server.url, "eight"), ping_secs=0.3) as (a, b):
            b.bus.join("another")
            await eventually(
                lambda: (b.reconnects, b.bus.connected) == (1, True), what="the move to the other database"
            )
            for recorder in (a, b):
                recorder.bus.subscribe(["c1"])

            def telling() -> bool:
                for topic in Topic:
                    a.bus.broadcast(topic, b"foreign")
                a.bus.publish_channel("c1", b"foreign")
                return others(b) == 1

            await eventually(telling, secs=30, what="notice of the other database")
            assert b.bus.problem is None
            assert (b.events, [payloads for payloads in b.broadcasts.values() if payloads]) == ([], [])
            b.bus.join(DATABASE)
            await eventually(lambda: (b.reconnects, b.bus.connected) == (2, True), what="the move back")
            await eventually(lambda: (telling(), b.events)[1], what="a channel of the same database")
            assert b.controls[:1] == [b"foreign"]
    lines = [(line["database"], line["other"]) for line in records if "another database" in line["event"]]
    assert lines == [("another", DATABASE)]


def others(recorder: Recorder) -> float | None:
    """How many other databases the metric tells of."""
    return recorder.metrics.registry.get_sample_value("openguild_nats_other_databases")


async def test_a_bus_connects_when_it_knows_its_database(nats_server: EmbeddedNats) -> None:
    async with anyio.create_task_group() as tasks:
        bus = NatsBus(nats_server.url, "nine", Metrics("0", native_ring=False), tasks)
        await bus.start(BusRecorder())
        assert bus.problem == "is not contacted before the database, because its subjects contain the database's id"
        bus.join(DATABASE)
        await eventually(lambda: bus.connected and bus.problem is None)
        await bus.aclose()
