"""What carries out the core's replica: nobody waits for ever, and nothing is held for those who were cancelled."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator
from typing import TypeVar

import anyio
import pytest

from openguild_proto.effects import StorageEffect
from openguild_proto.effects.replica import ReadHeads
from openguild_proto.http.message import OpenStream
from openguild_proto.records import Head
from openguild_proto.replica.actions import Level
from openguild_runtime.bus.local import LocalBus
from openguild_runtime.config.server_config import ServerConfig
from openguild_runtime.replica.runner import ReplicaRunner
from openguild_runtime.server.app import Server
from openguild_runtime.storage.memory import MemoryStorage
from tests.support.deeds import add_channel, add_guild, add_user
from tests.support.server import SIGNING_KEY
from tests.support.waiting import eventually

pytestmark = pytest.mark.anyio

T = TypeVar("T")


class Slow(MemoryStorage):
    """Heads wait until they may."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = anyio.Event()
        self.may = anyio.Event()

    async def perform(self, effect: StorageEffect[T]) -> T:
        if isinstance(effect, ReadHeads):
            self.asked.set()
            await self.may.wait()
        return await super().perform(effect)


@pytest.fixture
def storage() -> Slow:
    return Slow()


@pytest.fixture
async def runner(storage: Slow) -> AsyncIterator[ReplicaRunner]:
    config = ServerConfig.model_validate({"session": {"signing_key": SIGNING_KEY}})
    async with anyio.create_task_group() as tasks:
        server = Server(config, tasks, 1_000, storage=storage, bus=LocalBus())
        await server.replica.start()
        yield server.replica
        tasks.cancel_scope.cancel()


@pytest.fixture
async def stream(storage: Slow) -> OpenStream:
    user = await add_user(storage)
    channel = await add_channel(storage, await add_guild(storage, user), user)
    return OpenStream(user_id=user, session_id="s", verified_by=b"", expires_ms=0, channel_id=channel)


async def prepared_by(storage: Slow, runner: ReplicaRunner, stream: OpenStream) -> asyncio.Task[object]:
    """A stream that waits for the store."""
    waiter = asyncio.create_task(runner.streams.prepare(stream, math.inf))
    await storage.asked.wait()
    return waiter


async def cancelled(waiter: asyncio.Task[object]) -> None:
    with pytest.raises(asyncio.CancelledError):
        await waiter


async def test_a_stream_cancelled_while_it_is_prepared_is_not_held(
    storage: Slow, runner: ReplicaRunner, stream: OpenStream
) -> None:
    waiter = await prepared_by(storage, runner, stream)
    waiter.cancel()
    await cancelled(waiter)
    storage.may.set()
    assert runner.replica.channels.get(stream.channel_id or "") is None


async def test_a_stream_prepared_in_the_turn_of_its_cancellation_is_not_held(
    storage: Slow, runner: ReplicaRunner, stream: OpenStream
) -> None:
    waiter = await prepared_by(storage, runner, stream)
    waiter.cancel()  # it hears of that at its next turn, and before that the store answers
    (number,) = runner.replica._procedures._asked
    runner.replica.answered(number, {stream.channel_id: Head(0)}, now=runner._clock())
    runner.replica.handle_deadline(now=runner._clock())
    runner.perform_actions()
    await cancelled(waiter)
    assert runner.replica.channels.get(stream.channel_id or "") is None
    assert runner.replica._preparing.tickets == {}


async def test_a_stream_prepared_before_its_cancellation_is_not_held(
    storage: Slow, runner: ReplicaRunner, stream: OpenStream
) -> None:
    waiter = await prepared_by(storage, runner, stream)
    (number,) = runner.replica._procedures._asked
    runner.replica.answered(number, {stream.channel_id: Head(0)}, now=runner._clock())
    runner.replica.handle_deadline(now=runner._clock())
    runner.perform_actions()
    waiter.cancel()
    await cancelled(waiter)
    assert runner.replica.channels.get(stream.channel_id or "") is None


async def test_a_long_work_keeps_to_its_turns_however_many_inputs_come(runner: ReplicaRunner) -> None:
    """Each of many sockets that are told something has something to say to the replica, within one turn of the loop."""
    done: list[int] = []

    def take_a_while(number: int) -> None:
        time.sleep(0.0001)  # holds the loop, as a socket does that is told something
        done.append(number)

    outputs = runner.replica._outputs
    outputs.add_each(range(400), take_a_while)
    runner.perform_actions()
    in_turn = len(done)
    for _ in range(20):
        outputs.log(Level.INFO, "an input's action")
        runner.perform_actions()
        assert outputs.next_action(works=False) is None
    assert len(done) == in_turn < 100
    await eventually(lambda: len(done) == 400, what="the whole work")
