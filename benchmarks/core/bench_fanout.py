"""The fan-out path without sockets: both rings side by side, and the hub over them."""

from __future__ import annotations

from typing import Any

import pytest

from openguild_proto.fanout import native
from openguild_proto.fanout.hub import Hub
from openguild_proto.fanout.ring import Ring as PureRing
from openguild_proto.ws.frames import text_frame

RINGS = {"pure": PureRing} | ({"native": native.Ring} if native.NATIVE else {})
rings = pytest.mark.parametrize("ring", RINGS.values(), ids=RINGS.keys())
PAYLOAD = b"x" * 300
SUBSCRIBERS = 1_000


@pytest.mark.benchmark(group="publish one frame")
@rings
def test_publish(benchmark: Any, ring: type[PureRing]) -> None:
    frame = text_frame(PAYLOAD)
    made = ring(0)
    benchmark(made.publish, frame)


@pytest.mark.benchmark(group="one frame to 1,000 cursors")
@rings
def test_flush_one(benchmark: Any, ring: type[PureRing]) -> None:
    made = ring(0)
    for _ in range(SUBSCRIBERS):
        made.attach(0)
    frame = text_frame(PAYLOAD)
    size = len(frame)

    def flush() -> None:
        made.publish(frame)
        while slots := made.pending(128):
            for slot in slots:
                made.take(slot, 65_536)
                made.sent(slot, size)

    benchmark(flush)


@pytest.mark.benchmark(group="16 frames to 1,000 cursors, coalesced")
@rings
def test_flush_burst(benchmark: Any, ring: type[PureRing]) -> None:
    made = ring(0)
    for _ in range(SUBSCRIBERS):
        made.attach(0)
    frame = text_frame(PAYLOAD)
    size = 16 * len(frame)

    def flush() -> None:
        for _ in range(16):
            made.publish(frame)
        while slots := made.pending(128):
            for slot in slots:
                made.take(slot, 65_536)
                made.sent(slot, size)

    benchmark(flush)


@pytest.mark.benchmark(group="depth of a channel with 1,000 cursors")
@rings
def test_depth(benchmark: Any, ring: type[PureRing]) -> None:
    made = ring(0)
    for _ in range(SUBSCRIBERS):
        made.attach(0)
    made.publish(text_frame(PAYLOAD))
    assert benchmark(made.depth) == 1


@pytest.mark.benchmark(group="join and leave")
@rings
def test_subscribe(benchmark: Any, ring: type[PureRing]) -> None:
    hub = Hub(ring_type=ring)
    hub.open("c", 0)
    benchmark(lambda: hub.unsubscribe(hub.subscribe("c", 0)))
