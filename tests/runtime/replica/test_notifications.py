"""A channel that appears while a member's view is still being read: they are told of it, once."""

from __future__ import annotations

import time

import anyio
import pytest

from openguild_proto.effects import Appended
from openguild_proto.fanout.hub import Hub
from openguild_proto.records import ControlRecord, Visible
from openguild_runtime.bus.local import LocalBus
from openguild_runtime.observability.metrics import Metrics
from openguild_runtime.replica.notifications import user_ring
from openguild_runtime.replica.streams import Streams
from openguild_runtime.storage.memory import MemoryStorage
from tests.support.deeds import add_channel, add_guild, add_user, append
from tests.support.waiting import eventually

pytestmark = pytest.mark.anyio


class HeldStorage(MemoryStorage):
    """Reads a user's view at once, but answers only when `go` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.go = anyio.Event(), anyio.Event()

    async def visible(self, user_id: str) -> Visible:
        seen = await super().visible(user_id)
        self.asked.set()
        await self.go.wait()
        return seen


@pytest.mark.parametrize("member_before", [False, True])
async def test_a_channel_made_during_a_refresh_is_announced_once(member_before: bool) -> None:
    storage, hub, metrics = HeldStorage(), Hub(), Metrics("0", native_ring=True)
    async with anyio.create_task_group() as tasks:
        streams = Streams(
            hub=hub,
            storage=storage,
            bus=LocalBus(),
            metrics=metrics,
            tasks=tasks,
            clock=time.monotonic,
            replay_window=0,
        )
        created: list[ControlRecord] = []
        storage.on_control = created.append
        eve = await add_user(storage)
        hub.open(user_ring(eve), 0)
        streams.notifications.watchers.retain(eve)
        if member_before:
            guild = await add_guild(storage, eve)
            streams.notifications.watchers.update(eve, {guild}, ())
        else:
            streams.notifications.watchers.update(eve, (), ())
            guild = await add_guild(storage, eve)
        tasks.start_soon(streams.notifications.refresh, eve)
        await storage.asked.wait()
        channel = await add_channel(storage, guild, eve)
        streams.notifications.channel_created(created[-1])
        stored = await storage.perform(append(channel, eve))
        assert isinstance(stored, Appended)
        streams.committed(stored.event)
        storage.go.set()
        await streams.notifications.refresh(eve)  # waits for the first one
        await eventually(lambda: hub.head(user_ring(eve)) == 2, what="the channel, and its first message")
        assert streams.notifications.watchers.channels_of(eve) == {channel}
