"""Deliveries in a process: hints between replicas, and a configuration that turns them on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import anyio
import msgspec
import pytest

from openguild_proto.bus.topics import Topic
from openguild_proto.delivery.deliveries import Deliveries
from openguild_proto.effects.federation import AskPeer, PeerAnswer
from openguild_proto.hints import (
    PEER_HINTS,
    ContactHint,
    GrowthHint,
    PresenceChoice,
    PresenceStatus,
    TypingHint,
    encode_hint,
)
from openguild_runtime.bus.local import LocalBus
from openguild_runtime.federation.delivering import DeliveryRunner, PeerHints
from openguild_runtime.storage.memory import MemoryStorage
from openguild_runtime.system.clocks_and_entropy import ClocksAndEntropy
from tests.support.driven_deliveries import SIGNER, ModelPeer
from tests.support.owner import Owner

pytestmark = pytest.mark.anyio


class Handler:
    def __init__(self) -> None:
        self.given: list[Any] = []

    def probe(self, topic: Topic) -> bytes:
        return topic.value.encode()

    def channel_message(self, channel_id: str, payload: bytes, headers: Mapping[str, str]) -> None:
        self.given.append((channel_id, payload, headers))

    def broadcast_message(self, topic: Topic, payload: bytes) -> None:
        self.given.append((topic, payload))

    def bus_answered(self) -> None:
        self.given.append("answered")

    def bus_reconnected(self) -> None:
        self.given.append("reconnected")


def test_hints_on_peers_go_to_the_deliveries_and_all_else_to_the_replica() -> None:
    handler, heard, reconnected = Handler(), list[bytes](), list[str]()
    hints = PeerHints(handler, heard.append, lambda: reconnected.append("deliveries"))
    ours = [encode_hint(GrowthHint(("a",))), encode_hint(ContactHint("p.test"))]
    others = [encode_hint(TypingHint("c", "u")), encode_hint(PresenceChoice("u", "s", PresenceStatus.IDLE))]
    for payload in (*ours, *others):
        hints.broadcast_message(Topic.HINTS, payload)
    hints.broadcast_message(Topic.CONTROL, ours[0])
    hints.channel_message("c", b"x", {})
    hints.bus_answered()
    hints.bus_reconnected()
    assert (heard, reconnected) == (ours, ["deliveries"])
    assert all(payload.startswith(PEER_HINTS) for payload in ours)
    assert handler.given == [
        *((Topic.HINTS, payload) for payload in others), (Topic.CONTROL, ours[0]), ("c", b"x", {}), "answered", "reconnected",
    ]  # fmt: skip
    assert hints.probe(Topic.LIMITS) == b"limits"


async def test_deliveries_begin_when_federation_is_turned_on() -> None:
    owner, peer = Owner(), ModelPeer("p.test")
    guild = owner.guild()
    channel = owner.channel(guild)
    owner.join(guild, peer)
    storage = MemoryStorage(owner.tables)
    is_on, arrived = False, anyio.Event()

    async def ask(effect: AskPeer) -> PeerAnswer:
        answer = PeerAnswer(200, msgspec.json.encode(peer.take(effect.body)))
        if peer.logs[channel].events:
            arrived.set()
        return answer

    async with anyio.create_task_group() as tasks:
        runner = DeliveryRunner(
            Deliveries("here", SIGNER, lambda: 0.5), storage=storage, ask=ask, bus=LocalBus(), tasks=tasks,
            sources=ClocksAndEntropy(), is_on=lambda: is_on,
        )  # fmt: skip
        runner.grew(channel)
        runner.start()
        owner.post(channel)
        runner.grew(channel)
        runner.on_hint(b"{}")
        runner.contacted("p.test")
        await anyio.wait_all_tasks_blocked()
        assert peer.requests == []
        is_on = True
        runner.grew(channel)
        runner.on_hint(b'{"type":"grown"')
        with anyio.fail_after(10):
            await arrived.wait()
        assert [server for server, _ in runner.counters()] == ["p.test"]
        assert runner.delivery_to("p.test") is not None
        runner.drain()
        await anyio.wait_all_tasks_blocked()
        assert runner.counters() == []
        assert owner.tables._state.leases == {}
        tasks.cancel_scope.cancel()


class PartedBus(LocalBus):
    """Is not connected while it `is_away`."""

    is_away = False

    @property
    def connected(self) -> bool:
        return not self.is_away


@pytest.mark.parametrize("is_noticed", [True, False])
async def test_what_grew_while_the_bus_was_away_is_delivered(is_noticed: bool) -> None:
    owner, peer = Owner(), ModelPeer("p.test")
    guild = owner.guild()
    channel = owner.channel(guild)
    owner.join(guild, peer)
    asked, arrived = anyio.Event(), anyio.Event()

    async def ask(effect: AskPeer) -> PeerAnswer:
        answer = peer.take(effect.body)
        asked.set()
        if any(log_id == channel for log_id, _ in peer.order):
            arrived.set()
        return PeerAnswer(200, msgspec.json.encode(answer))

    bus = PartedBus()
    async with anyio.create_task_group() as tasks:
        runner = DeliveryRunner(
            Deliveries("one", SIGNER, lambda: 0.5), storage=MemoryStorage(owner.tables), ask=ask, bus=bus, tasks=tasks,
            sources=ClocksAndEntropy(),
        )  # fmt: skip
        runner.start()
        with anyio.fail_after(10):
            await asked.wait()
            bus.is_away = is_noticed  # else it is back before anybody looks
            owner.post(channel)
            if not is_noticed:
                runner.reconnected()
            await arrived.wait()
        tasks.cancel_scope.cancel()
