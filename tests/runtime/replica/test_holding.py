"""Holding channels: what is gone is left out, and the loop goes on turning while many are opened or let go."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

import anyio
import anyio.lowlevel
import pytest
from structlog.testing import capture_logs

from openguild_proto.effects import DeleteChannel, ReadEvents, StorageEffect, StorageUnavailable
from openguild_proto.fanout.hub import Hub
from openguild_proto.http.message import OpenStream
from openguild_proto.records import Author, Visible
from openguild_runtime.bus.local import LocalBus
from openguild_runtime.observability.metrics import Metrics
from openguild_runtime.replica.feeds import TURN_CHANNELS, ChannelGone
from openguild_runtime.replica.streams import Streams
from openguild_runtime.storage.memory import MemoryStorage
from tests.support.deeds import add_channel, add_guild, add_user, append, new_id
from tests.support.waiting import eventually

pytestmark = pytest.mark.anyio

T = TypeVar("T")


class CountingBus(LocalBus):
    """Knows which channels it is to hear."""

    def __init__(self) -> None:
        super().__init__()
        self.wanted: set[str] = set()

    async def subscribe_channel(self, channel_id: str) -> None:
        self.wanted.add(channel_id)

    async def unsubscribe_channel(self, channel_id: str) -> None:
        self.wanted.discard(channel_id)


class Shrinking(MemoryStorage):
    """Of `doomed` it still says that they are visible, and then they are deleted."""

    def __init__(self) -> None:
        super().__init__()
        self.doomed: list[str] = []

    async def visible(self, user_id: str) -> Visible:
        seen = await super().visible(user_id)
        for channel_id in self.doomed:
            await self.perform(DeleteChannel(author=Author(user_id), channel_id=channel_id))
        return seen


class Wide(MemoryStorage):
    """Has every channel that anybody asks for."""

    async def heads(self, channel_ids: Sequence[str]) -> dict[str, int]:
        return dict.fromkeys(channel_ids, 0)


class Away(MemoryStorage):
    async def heads(self, channel_ids: Sequence[str]) -> dict[str, int]:
        raise StorageUnavailable


class Slow(MemoryStorage):
    """Reads of a log wait until they may."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = anyio.Event()
        self.may = anyio.Event()

    async def perform(self, effect: StorageEffect[T]) -> T:
        if isinstance(effect, ReadEvents):
            self.asked.set()
            await self.may.wait()
        return await super().perform(effect)


@asynccontextmanager
async def streams_over(storage: MemoryStorage, bus: LocalBus) -> AsyncIterator[Streams]:
    metrics = Metrics("0", native_ring=True)
    async with anyio.create_task_group() as tasks:
        streams = Streams(
            hub=Hub(), storage=storage, bus=bus, metrics=metrics, tasks=tasks, clock=time.monotonic, replay_window=0
        )
        yield streams


def stream(user_id: str, channel_id: str | None) -> OpenStream:
    return OpenStream(user_id=user_id, session_id="s", verified_by=b"", expires_ms=0, channel_id=channel_id)


async def turns_until(condition: Callable[[], bool]) -> int:
    """How often the loop comes round before that."""
    turns = 0
    with anyio.fail_after(10):
        while not condition():
            turns += 1
            await anyio.lowlevel.checkpoint()
    return turns


async def test_a_channel_that_is_gone_by_now_is_left_out() -> None:
    storage, bus = Shrinking(), CountingBus()
    async with streams_over(storage, bus) as streams:
        user = await add_user(storage)
        guild = await add_guild(storage, user)
        kept, doomed = [await add_channel(storage, guild, user) for _ in range(2)]
        storage.doomed = [doomed]
        await streams.prepare(stream(user, None))
        assert streams.notifications.watchers.channels_of(user) == {kept}
        assert streams.feeds.get(doomed) is None
        await eventually(lambda: bus.wanted == {kept})
        with pytest.raises(ChannelGone):
            await streams.prepare(stream(user, doomed))
        await eventually(lambda: bus.wanted == {kept})


async def test_a_feed_that_is_let_go_while_it_reads_the_log_releases_nothing() -> None:
    """Another one of the same channel stands further on by then (found by the simulation)."""
    storage = Slow()
    async with streams_over(storage, LocalBus()) as streams:
        user = await add_user(storage)
        channel = await add_channel(storage, await add_guild(storage, user), user)
        await streams.feeds.hold([channel])
        for _ in range(2):
            await storage.perform(append(channel))
        old = streams.feeds.get(channel)
        assert old is not None
        await streams.feeds.check_tails()
        await storage.asked.wait()
        streams.feeds.release([channel])
        await streams.feeds.hold([channel])
        streams.hub.open(channel, 2)
        with capture_logs() as records:
            storage.may.set()
            await eventually(lambda: not old.backfilling)
        assert [record for record in records if record["log_level"] == "error"] == []
        assert streams.hub.head(channel) == 2
        await storage.perform(append(channel))
        await streams.feeds.check_tails()
        await eventually(lambda: streams.hub.head(channel) == 3)


async def test_a_store_that_is_away_is_not_a_channel_that_is_gone() -> None:
    bus = CountingBus()
    async with streams_over(Away(), bus) as streams:
        with pytest.raises(StorageUnavailable):
            await streams.feeds.hold([new_id()])
        await eventually(lambda: not bus.wanted)


async def test_many_channels_are_opened_and_let_go_in_many_turns_of_the_loop() -> None:
    bus, channels = CountingBus(), [f"c{number}" for number in range(10 * TURN_CHANNELS)]
    async with streams_over(Wide(), bus) as streams, anyio.create_task_group() as tasks:
        tasks.start_soon(streams.feeds.hold, channels)
        assert await turns_until(lambda: len(bus.wanted) == len(channels)) >= 9
        await eventually(lambda: all(feed.sequencer.begun for feed in map(streams.feeds.get, channels) if feed))
        streams.feeds.release(channels)
        assert all(streams.feeds.get(channel_id) is None for channel_id in channels)
        assert await turns_until(lambda: not bus.wanted) >= 9
