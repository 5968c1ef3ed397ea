"""The flush: who keeps up gets everything at once, however much there is."""

from __future__ import annotations

from typing import Any

import pytest

from openguild_proto.replica.actions import Flush, Urgency
from openguild_proto.replica.notifications import user_ring
from openguild_proto.ws.frames import text_frame
from openguild_runtime.net.transport import SEND_BYTES
from tests.support.line import Line, connected

pytestmark = pytest.mark.anyio


def publish(line: Line, count: int, size: int) -> bytes:
    """`count` events of `size` bytes within one turn of the loop; their frames."""
    (transport,) = line.server.replica.streams.transports()
    assert transport.stream is not None
    ring = user_ring(transport.stream.user_id)
    frames = [text_frame(b"%d" % (number % 10) * size) for number in range(count)]
    runner = line.server.replica
    for frame in frames:
        action = runner.replica._outputs.publish(ring, frame, runner.replica.hub.head(ring) + 1)
        if action is not None:
            runner._do(action)
    return b"".join(frames)


async def test_more_than_one_send_takes_arrives_without_another_event() -> None:
    async with connected() as line:
        await line.upgrade()
        frames = publish(line, 100, 1_000)
        assert len(frames) > SEND_BYTES
        assert await line.read_exactly(len(frames)) == frames


async def test_an_event_at_the_moment_of_the_upgrade_comes_behind_its_response() -> None:
    async with connected() as line:
        join = line.server.replica.streams.join

        def join_and_publish(*arguments: Any) -> None:
            join(*arguments)
            publish(line, 16, 1_000)
            line.server.replica.actions.perform(Flush(user_ring(line.user), Urgency.NOW))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(line.server.replica.streams, "join", join_and_publish)
            assert (await line.upgrade()).startswith("HTTP/1.1 101 ")


@pytest.mark.parametrize("size", [10, 40])
async def test_a_burst_overruns_nobody_who_keeps_up(size: int) -> None:
    """Ten times what the ring holds, within one turn of the loop."""
    async with connected(queue_capacity=16) as line:
        await line.upgrade()
        for _ in range(2):
            frames = publish(line, 160, size)
            assert await line.read_exactly(len(frames)) == frames
        assert line.server.replica.streams.transports()
