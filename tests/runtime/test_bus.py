"""The NATS bus on a real nats-server: who hears what, across cuts (A10, D-01)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from openguild_runtime.bus.nats import NatsBus
from openguild_runtime.embedded import EmbeddedNats
from openguild_runtime.metrics import Metrics
from tests.support.waiting import eventually

pytestmark = pytest.mark.anyio


@pytest.fixture
def own_nats(tmp_path: Path) -> Iterator[EmbeddedNats]:
    server = EmbeddedNats(tmp_path)
    server.start()
    yield server
    server.stop()


class Ears:
    """A bus and what it has heard."""

    def __init__(self, bus: NatsBus) -> None:
        self.bus = bus
        self.events: list[tuple[str, bytes]] = []
        self.controls: list[bytes] = []
        self.reconnects = 0
        bus.on_channel = lambda channel, payload, headers: self.events.append((channel, payload))
        bus.on_control = self.controls.append
        bus.on_reconnect = self._reconnected

    def _reconnected(self) -> None:
        self.reconnects += 1


@asynccontextmanager
async def listening(*servers: tuple[str, str]) -> AsyncIterator[list[Ears]]:
    """Connected buses, one for each (url, server name)."""
    async with anyio.create_task_group() as tasks:
        buses = [NatsBus(url, name, Metrics("0", native_ring=False), tasks) for url, name in servers]
        for bus in buses:
            await bus.start()
        ears = [Ears(bus) for bus in buses]
        await eventually(lambda: all(bus.connected for bus in buses))
        yield ears
        for bus in buses:
            await bus.aclose()


async def test_only_subscribers_of_a_channel_hear_it(nats_server: EmbeddedNats) -> None:
    async with listening((nats_server.url, "one"), (nats_server.url, "one"), (nats_server.url, "two")) as (a, b, other):
        await b.bus.subscribe_channel("c1")
        await other.bus.subscribe_channel("c1")
        await b.bus.subscribe_channel("c1")  # safe to repeat
        await anyio.to_thread.run_sync(lambda: None)
        a.bus.publish_control(b"everybody")
        await eventually(lambda: b.controls == [b"everybody"])
        a.bus.publish_channel("c1", b"payload")
        a.bus.publish_channel("c2", b"not for b")
        await eventually(lambda: b.events == [("c1", b"payload")])
        await b.bus.unsubscribe_channel("c1")
        a.bus.publish_channel("c1", b"too late")
        a.bus.publish_control(b"end")
        await eventually(lambda: b.controls[-1:] == [b"end"])
        assert b.events == [("c1", b"payload")]
        assert other.events == other.controls == [], "another server's name is another wire"


async def test_after_a_cut_it_reconnects_and_hears_again(own_nats: EmbeddedNats) -> None:
    async with listening((own_nats.url, "one"), (own_nats.url, "one")) as (a, b):
        await b.bus.subscribe_channel("before")
        await anyio.to_thread.run_sync(own_nats.kill)
        await eventually(lambda: not a.bus.connected and not b.bus.connected)
        a.bus.publish_channel("before", b"lost")  # never waits, never raises
        await b.bus.subscribe_channel("during")
        await anyio.to_thread.run_sync(own_nats.restart)
        await eventually(lambda: a.bus.connected and b.bus.connected)
        assert (a.reconnects, b.reconnects) == (1, 1)
        for channel in ("before", "during"):
            a.bus.publish_channel(channel, b"again")
        await eventually(lambda: sorted(b.events) == [("before", b"again"), ("during", b"again")])


async def test_a_message_that_is_none_is_survived(nats_server: EmbeddedNats) -> None:
    async with listening((nats_server.url, "three"), (nats_server.url, "three")) as (a, b):

        def picky(payload: bytes) -> None:
            if payload == b"bad":
                raise ValueError("not a control message")
            b.controls.append(payload)

        b.bus.on_control = picky
        a.bus.publish_control(b"bad")
        a.bus.publish_control(b"good")
        await eventually(lambda: b.controls == [b"good"])
