"""One run: replicas behind proxies, readers, posters, one fault after another, and the final checks."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from openguild_proto.client import Session
from openguild_runtime.client import Client
from openguild_runtime.embedded import EmbeddedNats, EmbeddedPostgres
from tests.scenarios.chaos.books import Log, check_logs, check_readers, read_log, seen_in, shown_by
from tests.scenarios.chaos.faults import FAULTS, Parts
from tests.scenarios.chaos.load import Load
from tests.scenarios.chaos.plan import Outcome, Plan
from tests.scenarios.chaos.reader import Reader
from tests.support.chat import PASSWORD
from tests.support.proxy import Proxy
from tests.support.server import ServerProcess
from tests.support.waiting import eventually

POSTERS = 16
AUTHORS = 4  # accounts shared by all clients
RETRY_SECS = 120.0
SETTLE_SECS = 60.0


class Chaos:
    def __init__(self, plan: Plan, directory: Path, say: Callable[[str], None]) -> None:
        self.plan = plan
        self.rng = Random(plan.seed)
        self.outcome = Outcome()
        self.say = say
        self.directory = directory
        self.parts = Parts(EmbeddedPostgres(directory / "data"), EmbeddedNats(directory / "data"))
        self.load = Load(plan, self.outcome, self.rng)
        self.readers: list[Reader] = []
        self.sessions: list[Session] = []  # of the accounts; the first owns the guild, and all readers use it
        self.owner_id = ""
        self.started = 0.0

    async def run(self) -> Outcome:
        async with AsyncExitStack() as stack:
            for private in (self.parts.postgres, self.parts.nats):
                await anyio.to_thread.run_sync(private.start)
                stack.push_async_callback(anyio.to_thread.run_sync, private.stop)
            async with anyio.create_task_group() as tasks:
                await self._start_servers(stack, tasks)
                await self._populate(stack)
                self.started = time.monotonic()
                for reader in self.readers:
                    tasks.start_soon(reader.run)
                await eventually(lambda: all(reader.opens for reader in self.readers), secs=60, what="all streams")
                async with anyio.create_task_group() as busy:
                    for number in range(POSTERS):
                        author = number % AUTHORS
                        posting, owner = await self._client(stack, author, number), await self._client(stack, 0, number)
                        busy.start_soon(self.load.post_on, posting, author, owner)
                    busy.start_soon(self._trouble)
                await self._check(stack)
                tasks.cancel_scope.cancel()
        self.outcome.seconds = round(time.monotonic() - self.started, 1)
        return self.outcome

    # --- set-up --------------------------------------------------------------------------------------

    async def _start_servers(self, stack: AsyncExitStack, tasks: TaskGroup) -> None:
        parts = self.parts
        for _ in range(self.plan.replicas):
            to_postgres, to_nats = Proxy(parts.postgres.port), Proxy(parts.nats.port)
            await to_postgres.start(tasks)
            await to_nats.start(tasks)
            parts.to_postgres.append(to_postgres)
            parts.to_nats.append(to_nats)
            server = ServerProcess(
                self.directory,
                DATABASE_URL=parts.postgres.url.replace(f":{parts.postgres.port}", f":{to_postgres.port}"),
                NATS__URL=parts.nats.url.replace(f":{parts.nats.port}", f":{to_nats.port}"),
                WEBSOCKET__MAX_CONNECTIONS_PER_USER=10_000, DRAIN__WINDOW_SECS=4,
            )  # fmt: skip
            parts.servers.append(server)
            if len(parts.servers) == 1:
                migrated = await anyio.to_thread.run_sync(server.run_command, "migrate")
                assert migrated.returncode == 0, migrated.stderr
            await anyio.to_thread.run_sync(server.start)
            stack.callback(server.__exit__, None, None, None)

    async def _client(self, stack: AsyncExitStack, author: int, place: int) -> Client:
        """Return a client of an account that tries the replica `place` first."""
        urls = [server.base_url for server in self.parts.servers]
        first = place % len(urls)
        session = self.sessions[author] if self.sessions else None
        client = Client(tuple(urls[first:] + urls[:first]), retry_secs=RETRY_SECS, session=session)
        return await stack.enter_async_context(client)

    async def _populate(self, stack: AsyncExitStack) -> None:
        people = [await self._client(stack, 0, 0) for _ in range(AUTHORS)]
        for number, client in enumerate(people):
            await client.register(f"chaos{number}", PASSWORD)
            await client.login(f"chaos{number}", PASSWORD)
        owner = people[0]
        self.owner_id = (await owner.request("GET", "/users/me"))["user_id"]
        guild = await owner.create_guild("chaos")
        invite = await owner.create_invite(guild.guild_id)
        for client in people[1:]:
            await client.accept_invite(invite.code)
        for number in range(self.plan.channels):
            channel = await owner.create_channel(guild.guild_id, f"c{number}")
            self.load.channels.append(channel.channel_id)
        for client in people:
            assert client.session is not None
            self.sessions.append(client.session)
        for number in range(self.plan.clients):
            client = await self._client(stack, 0, number)
            self.readers.append(Reader(client, self.load.channels[number % self.plan.channels], self.load))

    # --- faults --------------------------------------------------------------------------------------

    async def _trouble(self) -> None:
        outcome = self.outcome
        for name in self.plan.faults or tuple(FAULTS):
            await anyio.sleep(self.plan.pause_secs)
            if self.load.is_over:
                self.say(f"no posts are left for: {name}")
                break
            for reader in self.readers:
                reader.measure_anew()
            for reader in self.rng.sample(self.readers, self.plan.channels):
                reader.begin_again()
            self.say(f"{self.load.next_post} posts: {name}")
            await FAULTS[name](self.parts, self.rng.randrange(self.plan.replicas))
            outcome.faults.append(name)
            await anyio.sleep(self.plan.pause_secs)
            silence = max(reader.silence for reader in self.readers)
            latest = max(reader.latest_text for reader in self.readers)
            outcome.silence_by_fault[name], outcome.latest_text_by_fault[name] = round(silence, 2), round(latest, 3)
            outcome.longest_silence_secs = max(outcome.longest_silence_secs, round(silence, 2))
            outcome.latest_text_secs = max(outcome.latest_text_secs, round(latest, 3))

    # --- final checks --------------------------------------------------------------------------------

    async def _check(self, stack: AsyncExitStack) -> None:
        replicas = [
            await stack.enter_async_context(Client(server.base_url, session=self.sessions[0]))
            for server in self.parts.servers
        ]
        logs: dict[str, Log] = {channel: await read_log(replicas[0], channel) for channel in self.load.channels}
        with anyio.move_on_after(SETTLE_SECS):
            await eventually(
                lambda: all(r.count >= len(logs[r.channel_id]) for r in self.readers), secs=SETTLE_SECS + 1
            )
        check_logs(self.outcome, logs, self.load)
        check_readers(self.outcome, logs, self.readers)
        for channel in self.load.channels:
            shown, *others = [await shown_by(replica, channel) for replica in replicas]
            views = [seen_in(reader.view, self.owner_id) for reader in self.readers if reader.channel_id == channel]
            self.outcome.differing_views += sum(seen != shown for seen in (*others, *views))


async def run_plan(plan: Plan, directory: Path, say: Callable[[str], None] = lambda line: None) -> Outcome:
    return await Chaos(plan, directory, say).run()
