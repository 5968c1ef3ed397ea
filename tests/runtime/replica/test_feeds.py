"""Feeds and control messages of one replica, when what it should hear never comes or the log goes back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import anyio
import pytest
from openguild_runtime.replica.feeds import GAP_GRACE_SECS, TAIL_CHECK_SECS
from openguild_runtime.replica.notifications import user_ring

from openguild_proto.effects import Appended, DeleteGuild, GrantChannelRole
from openguild_proto.records import Author, ControlRecord
from openguild_proto.schemas.stream import encode_control, event_frame_payload
from openguild_runtime.bus.local import LocalBus
from openguild_runtime.server.app import Server
from openguild_runtime.storage.memory import MemoryStorage, MemoryTables
from tests.simulation.cluster import DESCRIPTORS, config
from tests.simulation.loop import SimLoop, run
from tests.support.deeds import NOW, add_channel, add_guild, add_user, append
from tests.support.waiting import POLL_SECS, eventually

pytestmark = pytest.mark.anyio


class Replica:
    """A server that does not listen; `elsewhere` stores for another replica, whose NATS messages are lost."""

    def __init__(self, server: Server, tables: MemoryTables) -> None:
        self.server = server
        self.elsewhere = MemoryStorage(tables)
        self.announced: list[ControlRecord] = []
        self.elsewhere.on_control = self.announced.append
        self.released: list[int] = []
        release = server.replica.released

        def released(channel_id: str, sequence: int, payload: bytes) -> None:
            self.released.append(sequence)
            release(channel_id, sequence, payload)

        server.feeds._released = released

    async def append(self, channel: str) -> tuple[int, bytes]:
        stored = await self.elsewhere.perform(append(channel))
        assert isinstance(stored, Appended)
        return stored.event.sequence, event_frame_payload(stored.event)


@pytest.fixture
async def replica() -> AsyncIterator[Replica]:
    tables = MemoryTables()
    async with anyio.create_task_group() as tasks:
        server = Server(config(3_600), tasks, DESCRIPTORS, storage=MemoryStorage(tables), bus=LocalBus(), native=False)
        await server.controls.start()
        yield Replica(server, tables)
        tasks.cancel_scope.cancel()


@pytest.fixture
async def owner(replica: Replica) -> str:
    return await add_user(replica.elsewhere)


@pytest.fixture
async def channel(replica: Replica, owner: str) -> str:
    return await add_channel(replica.elsewhere, await add_guild(replica.elsewhere, owner), owner)


async def test_what_was_stored_here_does_not_put_the_tail_check_off(replica: Replica, channel: str) -> None:
    feeds = replica.server.feeds
    await feeds.hold([channel])
    feeds.committed(channel, *await replica.append(channel))
    await replica.append(channel)
    await feeds.check_tails()
    await eventually(lambda: replica.released == [1, 2])


async def test_a_repeat_does_not_put_it_off_and_news_does(replica: Replica, channel: str) -> None:
    feeds = replica.server.feeds
    await feeds.hold([channel])
    _, first = await replica.append(channel)
    feeds.received(channel, first)
    await replica.append(channel)
    await feeds.check_tails()
    assert feeds._feeds[channel].sequencer.missing() is None, "NATS was heard a moment ago"
    feeds.received(channel, first)
    await feeds.check_tails()
    await eventually(lambda: replica.released == [1, 2])


def test_a_lost_last_message_waits_for_one_interval_and_a_quiet_feed_costs_one_line_in_each() -> None:
    """On simulated time, wherever between two checks it is lost: what was heard right before it does not put it off."""

    async def main(loop: SimLoop) -> None:
        tables = MemoryTables()
        async with anyio.create_task_group() as tasks:
            server = Server(
                config(3_600), tasks, DESCRIPTORS, storage=MemoryStorage(tables), bus=LocalBus(), native=False
            )
            replica, feeds = Replica(server, tables), server.feeds
            owner = await add_user(replica.elsewhere)
            channel = await add_channel(replica.elsewhere, await add_guild(replica.elsewhere, owner), owner)
            await feeds.hold([channel])
            asked = [0, 0]  # channels, and control logs

            async def heads(channel_ids: Sequence[str]) -> dict[str, int]:
                asked[0] += len(channel_ids)
                return await replica.elsewhere.heads(channel_ids)

            async def also() -> None:
                asked[1] += 1

            server.storage.heads = heads
            tasks.start_soon(feeds.run_tail_checks, also)
            for turn in range(100):
                await anyio.sleep(0.037 * turn % 2.5)
                _, heard = await replica.append(channel)
                feeds.received(channel, heard)
                sequence, _ = await replica.append(channel)
                lost = loop.time()
                await eventually(lambda sequence=sequence: replica.released[-1] == sequence)
                assert loop.time() - lost <= 1.25 * TAIL_CHECK_SECS + GAP_GRACE_SECS + POLL_SECS
            asked[:] = [0, 0]
            await anyio.sleep(1_000)
            most = 1_000 / TAIL_CHECK_SECS
            assert all(0.9 * most < count < 1.1 * most for count in asked), asked
            tasks.cancel_scope.cancel()

    run(main)


async def test_a_control_message_behind_a_lost_one_waits_for_the_grace_only(replica: Replica, owner: str) -> None:
    server = replica.server
    server.replica.hub.open(user_ring(owner), 0)
    server.replica.notifications.watchers.retain(owner)
    await server.replica.notifications.refresh(owner)
    guild = await add_guild(replica.elsewhere, owner)
    channel = await add_channel(replica.elsewhere, guild, owner)
    server.controls.received(encode_control(replica.announced[-1]))  # the one before it is lost
    await eventually(lambda: channel in server.replica.notifications.watchers.channels_of(owner))


async def test_a_guild_that_is_deleted_takes_feeds_and_pages_of_its_channels(
    replica: Replica, owner: str, channel: str
) -> None:
    """Also the feed of somebody who has a role in a channel and is no member of its guild."""
    server, streams = replica.server, replica.server.streams
    bob = await add_user(replica.elsewhere)
    await replica.elsewhere.perform(GrantChannelRole(channel_id=channel, user_id=bob, role="viewer", now_ms=NOW))
    streams.notifications.watchers.retain(bob)
    await streams.notifications.refresh(bob)
    await replica.append(channel)
    assert await streams._pages.read(channel, 0, 10)
    assert server.feeds.get(channel) is not None
    guild = replica.announced[0].guild_id
    assert guild is not None
    await replica.elsewhere.perform(DeleteGuild(author=Author(owner), guild_id=guild))
    await server.controls.check_tail()
    assert server.feeds.get(channel) is None
    assert streams._pages.nbytes == 0
    assert streams.notifications.watchers.channels_of(bob) == set()
