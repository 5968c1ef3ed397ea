"""Control records, applied to the sockets of this replica (PROTOCOL 10.4)."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
from openguild_runtime.replica.controls import Controls
from openguild_runtime.replica.streams import Streams

from openguild_proto.canonical.keys import KeyRing
from openguild_proto.canonical.signing import SigningKey
from openguild_proto.connection.server import ServerConnection
from openguild_proto.fanout.hub import Hub
from openguild_proto.http.message import OpenStream
from openguild_proto.sessions.tokens import TokenAuthority
from openguild_runtime.bus.local import LocalBus
from openguild_runtime.effects.performer import Performer
from openguild_runtime.net.nonblocking_socket import NonblockingSocket
from openguild_runtime.net.timers import TimerWheel
from openguild_runtime.net.transport import Transport
from openguild_runtime.observability.metrics import Metrics
from openguild_runtime.storage.memory import MemoryStorage
from tests.support.deeds import add_user, login
from tests.support.line import NoDriver

pytestmark = pytest.mark.anyio


class WatchedStreams(Streams):
    """Counts who walks over every socket."""

    walks = 0

    def transports(self) -> list[Transport]:
        self.walks += 1
        return super().transports()


class Replica:
    """Streams, controls and a store, without a listener."""

    def __init__(self, tasks: anyio.abc.TaskGroup) -> None:
        metrics = Metrics("0", native_ring=True)
        self.storage, self.tasks = MemoryStorage(), tasks
        self.keys = KeyRing(SigningKey(bytes(32)))
        self.tokens = TokenAuthority(self.keys)
        self.streams = WatchedStreams(
            hub=Hub(),
            storage=self.storage,
            bus=LocalBus(),
            metrics=metrics,
            tasks=tasks,
            clock=time.monotonic,
            replay_window=0,
        )
        self.controls = Controls(
            storage=self.storage, bus=LocalBus(), streams=self.streams, tokens=self.tokens,
            performer=self._performer, tasks=tasks,
        )  # fmt: skip
        self.streams.recheck = self.controls.recheck_joined
        self.storage.on_control = self.controls.stored
        self.timers = TimerWheel(time.monotonic)
        self._ends: list[socket.socket] = []

    def _performer(self) -> Performer:
        raise AssertionError("nothing is re-checked here")

    async def socket(self, user_id: str, session_id: str, changes: int | None = None) -> Transport:
        """An open notification stream of the session, whose access was checked at `changes` (now)."""
        stream = OpenStream(
            user_id=user_id, session_id=session_id, verified_by=self.keys.signing.public, expires_ms=0, channel_id=None
        )
        sock, other = socket.socketpair()
        sock.setblocking(False)
        self._ends += [sock, other]
        connection = ServerConnection(now=time.monotonic(), random_bytes=os.urandom)
        transport = Transport(
            NonblockingSocket(sock),
            "",
            connection,
            clock=time.monotonic,
            timers=self.timers,
            tasks=self.tasks,
            handler=NoDriver(),
        )
        changes = self.streams.changes if changes is None else changes
        await self.streams.prepare(stream)
        self.streams.join(transport, stream, changes)
        return transport

    def close(self) -> None:
        for end in self._ends:
            end.close()


@asynccontextmanager
async def replica() -> AsyncIterator[Replica]:
    async with anyio.create_task_group() as tasks:
        one = Replica(tasks)
        await one.controls.start()
        yield one
        one.close()
        tasks.cancel_scope.cancel()


async def test_revoked_sessions_are_looked_for_among_their_user_s_sockets_only() -> None:
    async with replica() as one:
        alice, bob = await add_user(one.storage), await add_user(one.storage)
        logins = [login(alice, 1), login(alice, 2, "laptop"), login(bob, 3)]
        for effect in logins:
            await one.storage.perform(effect)
        transports = [await one.socket(effect.user_id, effect.session_id) for effect in logins]
        await one.storage.perform(login(alice, 4))  # on the phone: its former session ends
        assert [transport.connection.wants_close for transport in transports] == [True, False, False]
        assert one.streams.walks == 0


async def test_streams_end_with_the_key_that_vouched_for_their_token() -> None:
    async with replica() as one:
        user = await add_user(one.storage)
        before, changes = await one.socket(user, "s"), one.streams.changes
        new = SigningKey(bytes([1]) * 32)
        one.tokens.replace_keys(KeyRing(new, fallback=(one.keys.signing.public,)))
        one.streams.keys_replaced(one.tokens.trusts)
        assert not before.connection.wants_close, "the fallback key still vouches"
        one.tokens.replace_keys(KeyRing(new))
        one.streams.keys_replaced(one.tokens.trusts)
        assert before.connection.wants_close
        late = await one.socket(user, "s", changes)
        assert late.connection.wants_close, "it was checked under the old ring and joined under the new one"
