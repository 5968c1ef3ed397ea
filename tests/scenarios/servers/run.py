"""Three real servers, each with a name and database of its own, and users in each other's guilds, under all kinds of faults."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import anyio
import anyio.to_thread
import asyncpg
from anyio.abc import TaskGroup

from openguild_proto.canonical.keys import encode_unpadded
from openguild_runtime.client import ApiError, Client, OutcomeUnknown
from openguild_runtime.embedded import EmbeddedPostgres
from tests.scenarios.servers.books import Books, read_log
from tests.support.chat import PASSWORD
from tests.support.proxy import Proxy
from tests.support.server import ServerProcess
from tests.support.waiting import eventually

NAMES = ("a.test", "b.test", "c.test")
CHANNELS = 2  # per guild
RETRIED = (429, 502, 503, 504)
RETRY_SECS = 0.3
SETTLE_SECS = 120.0
FAULTS = ("kill", "kill", "cut", "hole", "restart")


@dataclass
class Plan:
    """The parameters. `users` and `posts`: over all servers."""

    users: int = 200
    posts: int = 20_000
    posters: int = 24
    posts_per_sec: float = 60.0
    seed: int = 1
    fault_secs: float = 8.0


@dataclass
class Outcome:
    """The results. `lost`, `repeated`, `unordered` and `different` must be 0."""

    posts: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    lost: int = 0
    repeated: int = 0
    unordered: int = 0
    different: int = 0
    longest_post_secs: float = 0.0
    settle_secs: float = 0.0
    seconds: float = 0.0

    @property
    def is_good(self) -> bool:
        return not (self.lost or self.repeated or self.unordered or self.different)


class Servers:
    """One run."""

    def __init__(self, plan: Plan, directory: Path, say: Callable[[str], None]) -> None:
        self.plan, self.directory, self.say = plan, directory, say
        self.rng = Random(plan.seed)
        self.outcome = Outcome()
        self.books = Books(self.outcome)
        self.postgres = EmbeddedPostgres(directory / "data")
        self.servers: list[ServerProcess] = []
        self.links: dict[tuple[int, int], Proxy] = {}  # (from, to) -> proxy
        self.people: list[tuple[int, Client]] = []  # the number of their home server, and their client
        self.channels: list[str] = []
        self.next_post = 0

    async def run(self) -> Outcome:
        began = time.monotonic()
        async with AsyncExitStack() as stack:
            await anyio.to_thread.run_sync(self.postgres.start)
            stack.push_async_callback(anyio.to_thread.run_sync, self.postgres.stop)
            async with anyio.create_task_group() as tasks:
                await self._start(stack, tasks)
                await self._populate(stack)
                for place in range(len(self.servers)):
                    for channel in self.channels:
                        reader = next(client for home, client in self.people if home == place)
                        tasks.start_soon(self.books.follow, NAMES[place], reader, channel)
                async with anyio.create_task_group() as busy:
                    for number in range(self.plan.posters):
                        _, client = self.people[number * len(self.people) // self.plan.posters]
                        busy.start_soon(self._post, client, time.monotonic())
                    busy.start_soon(self._trouble)
                await self._settle()
                await self._check()
                tasks.cancel_scope.cancel()
        self.outcome.seconds = round(time.monotonic() - began, 1)
        return self.outcome

    # --- set-up --------------------------------------------------------------------------------------

    async def _start(self, stack: AsyncExitStack, tasks: TaskGroup) -> None:
        for place, name in enumerate(NAMES):
            url = await self._database(f"server_{place}")
            server = ServerProcess(
                self.directory, DATABASE_URL=url, SERVER_NAME=name, FEDERATION__MODE="open",
                FEDERATION__SIGNING_KEY=encode_unpadded(name.encode().ljust(32, b"k")),
                FEDERATION__ALLOW_PRIVATE_ADDRESSES="true", FEDERATION__MAX_PROPOSALS_PER_SERVER_PER_WINDOW=1_000_000,
                FEDERATION__MAX_REQUESTS_PER_SERVER_PER_WINDOW=1_000_000, FEDERATION__MAX_JOINS_PER_SERVER_PER_WINDOW=1_000_000,
                FEDERATION__MAX_INVITES_PER_SERVER_PER_WINDOW=1_000_000, WEBSOCKET__MAX_CONNECTIONS_PER_USER=10_000,
            )  # fmt: skip
            self.servers.append(server)
        for place, server in enumerate(self.servers):
            others = [other for other in range(len(NAMES)) if other != place]
            for at, other in enumerate(others):
                proxy = self.links[place, other] = Proxy(self.servers[other].port)
                await proxy.start(tasks)
                server.settings[f"FEDERATION__ADDRESSES__{at}"] = f"{NAMES[other]}=http://127.0.0.1:{proxy.port}"
            migrated = await anyio.to_thread.run_sync(server.run_command, "migrate")
            assert migrated.returncode == 0, migrated.stderr
            await anyio.to_thread.run_sync(server.start)
            stack.callback(server.__exit__, None, None, None)

    async def _database(self, name: str) -> str:
        connection = await asyncpg.connect(self.postgres.url)
        await connection.execute(f'CREATE DATABASE "{name}"')
        await connection.close()
        return self.postgres.database_url(name)

    async def _populate(self, stack: AsyncExitStack) -> None:
        """Create a guild on each server, and make every user a member of all of them."""
        for number in range(self.plan.users):
            place = number % len(self.servers)
            client = Client(self.servers[place].base_url, retry_secs=60.0)
            await stack.enter_async_context(client)
            await client.register(f"user {number}", PASSWORD)
            await client.login(f"user {number}", PASSWORD, device_id="d")
            self.people.append((place, client))
        for place, name in enumerate(NAMES):
            owner = self.people[place][1]
            guild = await owner.create_guild(f"guild of {name}")
            for at in range(CHANNELS):
                self.channels.append((await owner.create_channel(guild.guild_id, f"channel {at}")).channel_id)
            invite = await owner.create_invite(guild.guild_id)
            for home, client in self.people:
                code = invite.code if home == place else f"{invite.code}@{name}"
                await client.accept_invite(code)
        self.say(f"{len(self.people)} users are in {len(NAMES)} guilds")

    # --- load ----------------------------------------------------------------------------------------

    async def _post(self, client: Client, begun: float) -> None:
        while self.next_post < self.plan.posts:
            mine, self.next_post = self.next_post, self.next_post + 1
            await anyio.sleep(max(0.0, begun + mine / self.plan.posts_per_sec - time.monotonic()))
            channel, sent = self.rng.choice(self.channels), time.monotonic()
            body = {"content": f"post {mine}", "nonce": f"n{mine}"}
            while True:
                try:
                    answer = await client.request("POST", f"/channels/{channel}/messages", body)
                except OutcomeUnknown:
                    await anyio.sleep(RETRY_SECS)
                except ApiError as refused:
                    if refused.status not in RETRIED:
                        raise
                    await anyio.sleep(RETRY_SECS)
                else:
                    break
            self.outcome.longest_post_secs = round(max(self.outcome.longest_post_secs, time.monotonic() - sent), 2)
            self.outcome.posts += 1
            self.books.acknowledged(channel, answer["sequence"], answer["event_id"], f"n{mine}")

    async def _trouble(self) -> None:
        while self.next_post < self.plan.posts:
            await anyio.sleep(self.plan.fault_secs * self.rng.random())
            fault = self.rng.choice(FAULTS)
            self.outcome.faults[fault] = self.outcome.faults.get(fault, 0) + 1
            await getattr(self, f"_{fault}")()

    async def _kill(self) -> None:
        server = self.rng.choice(self.servers)
        assert server.process is not None
        server.process.kill()
        await anyio.to_thread.run_sync(server.process.wait)
        await anyio.sleep(2 * self.rng.random())
        await anyio.to_thread.run_sync(server.start)

    async def _restart(self) -> None:
        server = self.rng.choice(self.servers)
        await anyio.to_thread.run_sync(server.stop)
        await anyio.to_thread.run_sync(server.start)

    async def _cut(self) -> None:
        link = self.links[self.rng.choice(list(self.links))]
        link.cut()
        await anyio.sleep(6 * self.rng.random())
        link.heal()

    async def _hole(self) -> None:
        link = self.links[self.rng.choice(list(self.links))]
        link.black_hole()
        await anyio.sleep(6 * self.rng.random())
        link.heal()

    # --- the end -------------------------------------------------------------------------------------

    async def _settle(self) -> None:
        for link in self.links.values():
            link.heal()
        began = time.monotonic()
        await eventually(self._is_level, secs=SETTLE_SECS, what="all mirrors")
        self.outcome.settle_secs = round(time.monotonic() - began, 1)

    def _readers(self) -> list[Client]:
        return [next(client for home, client in self.people if home == place) for place in range(len(NAMES))]

    async def _is_level(self) -> bool:
        for channel in self.channels:
            heads = [max((e.sequence for e in await c.events(channel, limit=1)), default=0) for c in self._readers()]
            if len(set(heads)) > 1 or not self.books.has_followed(channel, heads[0]):
                return False
        return True

    async def _check(self) -> None:
        for channel in self.channels:
            logs = [await read_log(client, channel) for client in self._readers()]
            self.books.compare(channel, logs)


async def run_plan(plan: Plan, directory: Path, say: Callable[[str], None]) -> Outcome:
    """Run one plan to its end. `say` gets every error in the servers' logs, even if the run fails."""
    servers = Servers(plan, directory, say)
    try:
        return await servers.run()
    finally:
        for server in servers.servers:
            for record in server.records():
                if record["level"] == "ERROR":
                    say(f"{server.settings['SERVER_NAME']}: {record}")
