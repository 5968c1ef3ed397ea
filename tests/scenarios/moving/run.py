"""Three real servers, each of one process or more: a guild moves under load, with kills; then its owner is lost and returns."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import anyio
import anyio.to_thread
import asyncpg
from anyio.abc import TaskGroup

from openguild_runtime.client import ApiError, Client, OutcomeUnknown
from openguild_runtime.embedded import EmbeddedNats, EmbeddedPostgres
from tests.scenarios.moving.homes import Home
from tests.scenarios.servers.books import Books, read_log
from tests.support.chat import PASSWORD
from tests.support.waiting import eventually

NAMES = ("a.test", "b.test", "c.test")
RETRIED = (429, 502, 503, 504)
RETRY_SECS = 0.2
MOVE_SECS = 300.0


@dataclass
class Plan:
    """The parameters. `history`: messages before the first move; `replicas`: processes per server."""

    history: int = 3_000
    replicas: int = 1
    posts_per_sec: float = 30.0
    moves: int = 4
    kills: int = 2
    seed: int = 1


@dataclass
class Outcome:
    """The results. `lost`, `repeated`, `unordered`, `different` and `errors` must be empty or 0."""

    posts: int = 0
    moves: list[dict[str, Any]] = field(default_factory=list)
    lost: int = 0
    repeated: int = 0
    unordered: int = 0
    different: int = 0
    errors: list[str] = field(default_factory=list)
    longest_post_secs: float = 0.0
    seconds: float = 0.0
    steps: list[str] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        return not (self.lost or self.repeated or self.unordered or self.different or self.errors)


class Moving:
    """One run."""

    def __init__(self, plan: Plan, directory: Path, say: Callable[[str], None]) -> None:
        self.plan, self.directory = plan, directory
        self.rng = Random(plan.seed)
        self.outcome = Outcome()
        self._say = say
        self.postgres = EmbeddedPostgres(directory / "data")
        self.nats = EmbeddedNats(directory / "data")
        self.servers: list[Home] = []
        self.people: list[Client] = []  # one per server; the first owns the guild
        self.guild = self.channel = ""
        self.is_over = False
        self.next_post = 0
        self.books = Books(self.outcome)
        self.longest = 0.0

    def say(self, text: str) -> None:
        self.outcome.steps.append(text)
        self._say(text)

    async def run(self) -> Outcome:
        began = time.monotonic()
        async with AsyncExitStack() as stack:
            await anyio.to_thread.run_sync(self.postgres.start)
            stack.push_async_callback(anyio.to_thread.run_sync, self.postgres.stop)
            tasks = await stack.enter_async_context(anyio.create_task_group())
            stack.callback(tasks.cancel_scope.cancel)
            await self._start(stack, tasks)
            await self._populate(stack)
            async with anyio.create_task_group() as busy:
                for client in self.people:
                    busy.start_soon(self._write, client)
                for number in range(self.plan.moves):
                    await self._move(number, kills=number < self.plan.kills)
                self.is_over = True
            await self._check("after the moves", range(3))
            await self._check_ban(f"{self.code}@{NAMES[0]}")  # an old invite leads to the current owner
            await self._lose()
            invite = await self.people[0].create_invite(self.guild)
            await self._check_ban(f"{invite.code}@{NAMES[(self.plan.moves + 1) % 3]}")
        for server in self.servers:
            self.outcome.errors += [f"{server.name}: {line}" for line in server.errors()]
        self.outcome.seconds = round(time.monotonic() - began, 1)
        return self.outcome

    # --- set-up --------------------------------------------------------------------------------------

    async def _start(self, stack: AsyncExitStack, tasks: TaskGroup) -> None:
        shared: dict[str, object] = {}
        if self.plan.replicas > 1:
            await anyio.to_thread.run_sync(self.nats.start)
            stack.push_async_callback(anyio.to_thread.run_sync, self.nats.stop)
            shared["NATS__URL"] = self.nats.url
        for place, name in enumerate(NAMES):
            connection = await asyncpg.connect(self.postgres.url)
            await connection.execute(f'CREATE DATABASE "server_{place}"')
            await connection.close()
            url = self.postgres.database_url(f"server_{place}")
            home = Home(name, self.directory, self.plan.replicas, DATABASE_URL=url, **shared)
            await home.balancer.start(tasks)
            self.servers.append(home)
        for server in self.servers:
            server.know([other for other in self.servers if other is not server])
            migrated = await anyio.to_thread.run_sync(server.command, "migrate")
            assert migrated.returncode == 0, migrated.stderr
            stack.callback(server.stop)
            await anyio.to_thread.run_sync(server.start)

    async def _populate(self, stack: AsyncExitStack) -> None:
        self.banned = Client(self.servers[-1].url, retry_secs=60.0)
        for place, server in enumerate(self.servers):
            client = Client(server.url, retry_secs=60.0)
            await stack.enter_async_context(client)
            await client.register(f"user {place}", PASSWORD)
            await client.login(f"user {place}", PASSWORD, device_id="d")
            self.people.append(client)
        await stack.enter_async_context(self.banned)
        await self.banned.register("banned", PASSWORD)
        await self.banned.login("banned", PASSWORD, device_id="d")
        owner = self.people[0]
        self.guild = (await owner.create_guild("wandering")).guild_id
        self.channel = (await owner.create_channel(self.guild, "general")).channel_id
        async with anyio.create_task_group() as tasks:
            for part in range(8):
                tasks.start_soon(self._fill, owner, range(part, self.plan.history, 8))
        invite = await owner.create_invite(self.guild)
        self.code = invite.code
        for client in self.people[1:]:
            await client.accept_invite(f"{invite.code}@{NAMES[0]}")
        member = await self.banned.accept_invite(f"{invite.code}@{NAMES[0]}")
        await owner.ban_member(self.guild, member.user_id, "for good, wherever the guild goes")
        self.say(f"{self.plan.history} messages are from before the others joined")

    async def _fill(self, client: Client, numbers: range) -> None:
        for number in numbers:
            await self._post(client, f"old {number}")
            if number % 50 == 0:
                event = self.last_event_id
                await client.request(
                    "POST", f"/channels/{self.channel}/events/{event}/reactions", {"emoji": "\N{THUMBS UP SIGN}"}
                )

    # --- load ----------------------------------------------------------------------------------------

    async def _write(self, client: Client) -> None:
        pause = len(self.people) / self.plan.posts_per_sec
        while not self.is_over:
            self.next_post += 1
            await self._post(client, f"post {self.next_post}")
            await anyio.sleep(pause)

    async def _post(self, client: Client, text: str) -> None:
        sent, body = time.monotonic(), {"content": text, "nonce": text.replace(" ", "-")}
        while True:
            try:
                answer = await client.request("POST", f"/channels/{self.channel}/messages", body)
            except OutcomeUnknown:
                await anyio.sleep(RETRY_SECS)
            except ApiError as refused:
                if refused.status not in RETRIED:
                    raise
                await anyio.sleep(RETRY_SECS)
            else:
                break
        self.longest = max(self.longest, time.monotonic() - sent)
        self.outcome.posts += 1
        self.last_event_id = answer["event_id"]
        self.books.acknowledged(self.channel, answer["sequence"], answer["event_id"], text)

    # --- moves ---------------------------------------------------------------------------------------

    async def _move(self, number: int, *, kills: bool) -> None:
        source, target = number % 3, (number + 1) % 3
        self.longest, began = 0.0, time.monotonic()
        await self._admin(source, "guild", "move", self.guild, NAMES[target])
        killed = []
        while await self._origin(target) is not None:
            if kills and len(killed) < 2 and self.rng.random() < 0.3:
                victim = self.rng.choice((source, target))
                killed.append(f"{NAMES[victim]} {await self.servers[victim].kill_one(self.rng)}")
            assert time.monotonic() - began < MOVE_SECS, self.servers[source].tail()
            await anyio.sleep(0.2)
        for place in range(3):
            wanted = None if place == target else NAMES[target]
            await eventually(lambda p=place, w=wanted: self._is_owned(p, w), secs=90, what=f"{NAMES[place]} follows")
        secs = round(time.monotonic() - began, 1)
        self.outcome.moves.append(
            {"to": NAMES[target], "secs": secs, "killed": killed, "longest_post_secs": round(self.longest, 2)}
        )
        self.outcome.longest_post_secs = max(self.outcome.longest_post_secs, round(self.longest, 2))
        self.say(f"moved to {NAMES[target]} in {secs} s, killed {killed}, the longest post took {self.longest:.1f} s")

    async def _admin(self, place: int, *arguments: str) -> str:
        done = await anyio.to_thread.run_sync(self.servers[place].command, "admin", *arguments)
        assert done.returncode == 0, (done.stdout, done.stderr)
        return str(done.stdout)

    async def _origin(self, place: int) -> str | None:
        try:
            guild = await self.people[place].request("GET", f"/guilds/{self.guild}")
        except (ApiError, OutcomeUnknown):
            return "?"
        return guild.get("origin")

    async def _is_owned(self, place: int, origin: str | None) -> bool:
        return await self._origin(place) == origin

    async def _check(self, when: str, places: range) -> None:
        """Check that all reachable servers have the same log, with every acknowledged post once."""

        async def is_level() -> bool:
            heads = {
                max((event.sequence for event in await self.people[place].events(self.channel, limit=1)), default=0)
                for place in places
            }
            return len(heads) == 1

        await eventually(is_level, secs=90, what="all mirrors")
        logs = [await read_log(self.people[place], self.channel) for place in places]
        self.books.compare(self.channel, logs)
        self.say(f"{when}: {[len(log) for log in logs]} events on the servers, {self.outcome.posts} posts acknowledged")

    async def _check_ban(self, invite: str) -> None:
        """Check that the guild's current owner refuses a user whom the first owner banned."""
        refusal = ""

        async def is_refused() -> bool:
            nonlocal refusal
            try:
                await self.banned.accept_invite(invite)
            except ApiError as refused:
                refusal = refused.code
            else:
                self.outcome.errors.append("a banned user joined")
                return True
            return refusal == "banned"

        await eventually(is_refused, secs=90, what="the refusal of a banned user")
        self.say(f"a banned user is refused: {refusal}")

    # --- a lost owner --------------------------------------------------------------------------------

    async def _lose(self) -> None:
        """Lose the second server, which owns the guild; the third takes over by the statement that the owner has stored."""
        owner, successor = self.plan.moves % 3, (self.plan.moves + 1) % 3
        third = 3 - owner - successor
        statement = await self.people[0].request(
            "PUT", f"/guilds/{self.guild}/succession", {"server": NAMES[successor]}
        )
        text = json.dumps(statement)
        server = self.servers[owner]
        await server.kill_all()
        began = time.monotonic()
        while True:
            done = await anyio.to_thread.run_sync(
                lambda: self.servers[successor].command("admin", "guild", "succeed", "-", stdin=text)
            )
            if done.returncode == 0:
                break
            assert "was heard of" in done.stdout, done.stdout
            await anyio.sleep(1)
        self.say(f"{NAMES[owner]} is lost; {NAMES[successor]} owns the guild {time.monotonic() - began:.1f} s later")
        await self._post(self.people[successor], "we go on")
        await eventually(lambda: self._is_owned(third, NAMES[successor]), secs=90, what="the third server follows")
        await self._post(self.people[third], "so do we")
        await anyio.to_thread.run_sync(server.start)
        await eventually(lambda: self._is_owned(owner, NAMES[successor]), secs=90, what="the former owner follows")
        self.say(f"{NAMES[owner]} is back and follows {NAMES[successor]}")
        await self._post(self.people[owner], "and we as well")
        await self._is_same()

    async def _is_same(self) -> None:
        async def texts(place: int) -> list[str]:
            page = await self.people[place].request("GET", f"/channels/{self.channel}/messages?limit=50")
            return [line["content"] for line in page]

        async def is_same() -> bool:
            try:
                pages = [await texts(place) for place in range(3)]
            except ApiError as refused:
                if refused.status != 503:  # a restarting mirror asks the owner, and does not follow it yet
                    raise
                return False
            return all(page[-3:] == ["we go on", "so do we", "and we as well"] for page in pages)

        await eventually(is_same, secs=180, what="all servers show the same")  # a mirror restarts at most once a minute
        self.say("all servers show the same newest messages")


async def run_plan(plan: Plan, directory: Path, say: Callable[[str], None]) -> Outcome:
    """Run one plan to its end."""
    return await Moving(plan, directory, say).run()
