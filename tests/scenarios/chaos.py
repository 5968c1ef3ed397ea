"""Real replicas, a real PostgreSQL and a real nats-server behind proxies, real clients, and everything goes wrong.

`python -m tests.scenarios.chaos [--replicas 3 --clients 200 --posts 20000 --seed 1]` is the long form (`make chaos`);
test_chaos.py runs a short one. Every reader keeps a hash of what it got; it must be the log's.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random

import anyio
import anyio.to_thread

from openguild_proto.client import Delivered, Opened, StreamEvent
from openguild_runtime.client import ChannelEvent, Client
from openguild_runtime.client.subscription import Subscription
from openguild_runtime.embedded import EmbeddedNats, EmbeddedPostgres
from tests.support.chat import PASSWORD
from tests.support.proxy import Proxy
from tests.support.server import ServerProcess
from tests.support.waiting import eventually

POSTERS = 16
RETRY_SECS = 120.0
SETTLE_SECS = 60.0


@dataclass
class Plan:
    replicas: int = 3
    clients: int = 200
    channels: int = 4
    posts: int = 20_000
    posts_per_sec: float = 110.0
    pause_secs: float = 4.0  # before and after each fault
    faults: tuple[str, ...] = ()
    seed: int = 1


@dataclass
class Outcome:
    """`lost`, `repeated`, `out_of_order`: over all acknowledged posts and all readers."""

    posts: int = 0
    deliveries: int = 0
    lost: int = 0
    repeated: int = 0
    out_of_order: int = 0
    gaps: int = 0
    reconnects: int = 0
    longest_silence_secs: float = 0.0
    longest_post_secs: float = 0.0
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)
    silence_by_fault: dict[str, float] = field(default_factory=dict)


class Reader:
    """One streaming client; `digest` grows with every text."""

    def __init__(self, client: Client, channel_id: str) -> None:
        self.channel_id = channel_id
        self.subscription: Subscription = client.subscribe(channel_id, since=0)
        self.digest = hashlib.blake2b(digest_size=16)
        self.count = 0
        self.opens = 0
        self.last = time.monotonic()
        self.silence = 0.0

    async def run(self) -> None:
        async with self.subscription as subscription:
            while True:
                self._take(await subscription.next_event())

    def _take(self, event: StreamEvent) -> None:
        if isinstance(event, Delivered):
            now = time.monotonic()
            self.silence = max(self.silence, now - self.last)
            self.last = now
            self.count += 1
            self.digest.update(text_of(event.payload).encode() + b"\n")
        elif isinstance(event, Opened):
            self.opens += 1


def text_of(payload: str) -> str:
    import msgspec

    return msgspec.json.decode(payload, type=ChannelEvent).text


class Chaos:
    def __init__(self, plan: Plan, directory: Path, say: Callable[[str], None]) -> None:
        self.plan = plan
        self.rng = Random(plan.seed)
        self.outcome = Outcome()
        self.say = say
        self.postgres = EmbeddedPostgres(directory / "data")
        self.nats = EmbeddedNats(directory / "data")
        self.directory = directory
        self.servers: list[ServerProcess] = []
        self.to_postgres: list[Proxy] = []
        self.to_nats: list[Proxy] = []
        self.readers: list[Reader] = []
        self.acknowledged: dict[tuple[str, int], str] = {}
        self.channels: list[str] = []
        self.next_post = 0
        self.started = 0.0
        self.finished = anyio.Event()

    # --- set-up --------------------------------------------------------------------------------------

    async def run(self) -> Outcome:
        async with AsyncExitStack() as stack:
            for private in (self.postgres, self.nats):
                await anyio.to_thread.run_sync(private.start)
                stack.push_async_callback(anyio.to_thread.run_sync, private.stop)
            async with anyio.create_task_group() as tasks:
                await self._start_servers(stack, tasks)
                await self._populate(stack)
                self.started = time.monotonic()
                for reader in self.readers:
                    tasks.start_soon(reader.run)
                await eventually(lambda: all(reader.opens for reader in self.readers), secs=60, what="all streams")
                self._forget_silence()
                async with anyio.create_task_group() as busy:
                    for number in range(POSTERS):
                        busy.start_soon(self._post, number)
                    busy.start_soon(self._trouble)
                await self._settle()
                await self._check()
                tasks.cancel_scope.cancel()
        self.outcome.seconds = round(time.monotonic() - self.started, 1)
        return self.outcome

    async def _start_servers(self, stack: AsyncExitStack, tasks: anyio.abc.TaskGroup) -> None:
        for _ in range(self.plan.replicas):
            to_postgres, to_nats = Proxy(self.postgres.port), Proxy(self.nats.port)
            await to_postgres.start(tasks)
            await to_nats.start(tasks)
            self.to_postgres.append(to_postgres)
            self.to_nats.append(to_nats)
            server = ServerProcess(
                self.directory,
                DATABASE_URL=self.postgres.url.replace(f":{self.postgres.port}", f":{to_postgres.port}"),
                NATS__URL=self.nats.url.replace(f":{self.nats.port}", f":{to_nats.port}"),
                WEBSOCKET__MAX_CONNECTIONS_PER_USER=10_000, DRAIN__WINDOW_SECS=4,
            )  # fmt: skip
            self.servers.append(server)
            if len(self.servers) == 1:
                migrated = await anyio.to_thread.run_sync(server.run_command, "migrate")
                assert migrated.returncode == 0, migrated.stderr
            await anyio.to_thread.run_sync(server.start)
            stack.callback(server.__exit__, None, None, None)

    async def _populate(self, stack: AsyncExitStack) -> None:
        urls = [server.base_url for server in self.servers]
        first = await stack.enter_async_context(Client(tuple(urls), retry_secs=RETRY_SECS))
        await first.register("chaos", PASSWORD)
        await first.login("chaos", PASSWORD)
        guild = (await first.request("POST", "/guilds", {"name": "chaos"}))["guild_id"]
        for number in range(self.plan.channels):
            channel = await first.request("POST", f"/guilds/{guild}/channels", {"name": f"c{number}"})
            self.channels.append(channel["channel_id"])
        self.clients: list[Client] = []
        for place in range(self.plan.replicas):
            client = Client(tuple(urls[place:] + urls[:place]), retry_secs=RETRY_SECS, session=first.session)
            self.clients.append(await stack.enter_async_context(client))
        for number in range(self.plan.clients):
            client = Client(tuple(urls[number % len(urls) :] + urls[: number % len(urls)]), session=first.session)
            self.readers.append(Reader(client, self.channels[number % self.plan.channels]))

    # --- load ----------------------------------------------------------------------------------------

    async def _post(self, number: int) -> None:
        """Post until there is no more to post, at the plan's pace over all posters."""
        client = self.clients[number % len(self.clients)]
        begun = time.monotonic()
        while self.next_post < self.plan.posts:
            mine, self.next_post = self.next_post, self.next_post + 1
            await anyio.sleep(max(0.0, begun + mine / self.plan.posts_per_sec - time.monotonic()))
            channel, text = self.rng.choice(self.channels), f"post {mine} " + "x" * self.rng.choice((10, 200))
            sent = time.monotonic()
            posted = await client.post(channel, text)
            self.outcome.longest_post_secs = max(self.outcome.longest_post_secs, time.monotonic() - sent)
            if self.acknowledged.setdefault((channel, posted.sequence), text) != text:
                self.outcome.repeated += 1

    # --- trouble -------------------------------------------------------------------------------------

    async def _trouble(self) -> None:
        deeds: dict[str, Callable[[int], Awaitable[None]]] = {
            "kill -9 a server": self._kill_server,
            "kill -9 PostgreSQL": self._kill_postgres,
            "kill -9 nats-server": self._kill_nats,
            "SIGSTOP a server for 10 s": self._freeze,
            "cut a server from PostgreSQL": self._cut_postgres,
            "black-hole a server's NATS": self._lose_nats,
            "slow PostgreSQL": self._slow_postgres,
            "rolling restart": self._roll,
            "black-hole a server's PostgreSQL": self._lose_postgres,
            "kill -9 a server and nats-server": self._kill_both,
        }
        for name in self.plan.faults or tuple(deeds):
            await anyio.sleep(self.plan.pause_secs)
            if self.next_post >= self.plan.posts:
                self.say(f"no posts are left for: {name}")
                break
            self._forget_silence()
            self.say(f"{self.next_post} posts: {name}")
            await deeds[name](self.rng.randrange(self.plan.replicas))
            self.outcome.faults.append(name)
            await anyio.sleep(self.plan.pause_secs)
            silence = max(reader.silence for reader in self.readers)
            self.outcome.silence_by_fault[name] = round(silence, 2)
            self.outcome.longest_silence_secs = round(max(self.outcome.longest_silence_secs, silence), 2)

    def _forget_silence(self) -> None:
        now = time.monotonic()
        for reader in self.readers:
            reader.silence, reader.last = 0.0, now

    async def _kill_server(self, number: int) -> None:
        server = self.servers[number]
        await anyio.to_thread.run_sync(server.stop, signal.SIGKILL)
        await anyio.sleep(1)
        await anyio.to_thread.run_sync(server.start)

    async def _kill_postgres(self, number: int) -> None:
        await anyio.to_thread.run_sync(self.postgres.kill)
        await anyio.sleep(1)
        await anyio.to_thread.run_sync(self.postgres.restart)

    async def _kill_nats(self, number: int) -> None:
        await anyio.to_thread.run_sync(self.nats.kill)
        await anyio.sleep(3)
        await anyio.to_thread.run_sync(self.nats.restart)

    async def _kill_both(self, number: int) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._kill_nats, number)
            tasks.start_soon(self._kill_server, number)

    async def _freeze(self, number: int) -> None:
        process = self.servers[number].process
        assert process is not None
        process.send_signal(signal.SIGSTOP)
        await anyio.sleep(10)
        process.send_signal(signal.SIGCONT)

    async def _cut_postgres(self, number: int) -> None:
        await self._broken(self.to_postgres[number], self.to_postgres[number].cut, 3)

    async def _lose_postgres(self, number: int) -> None:
        await self._broken(self.to_postgres[number], self.to_postgres[number].black_hole, 8)

    async def _lose_nats(self, number: int) -> None:
        await self._broken(self.to_nats[number], self.to_nats[number].black_hole, 10)

    async def _slow_postgres(self, number: int) -> None:
        await self._broken(self.to_postgres[number], lambda: setattr(self.to_postgres[number], "delay_secs", 0.1), 5)

    async def _broken(self, proxy: Proxy, breaks: Callable[[], None], secs: float) -> None:
        breaks()
        await anyio.sleep(secs)
        proxy.heal()

    async def _roll(self, number: int) -> None:
        for server in self.servers:
            status = await anyio.to_thread.run_sync(server.stop)
            assert status == 0, server.tail()
            await anyio.to_thread.run_sync(server.start)

    # --- the books -----------------------------------------------------------------------------------

    async def _settle(self) -> None:
        """Until every reader has as many events as were acknowledged in its channel."""
        wanted = dict.fromkeys(self.channels, 0)
        for channel, sequence in self.acknowledged:
            wanted[channel] = max(wanted[channel], sequence)
        with anyio.move_on_after(SETTLE_SECS):
            while any(reader.count < wanted[reader.channel_id] for reader in self.readers):  # noqa: ASYNC110
                await anyio.sleep(0.1)

    async def _check(self) -> None:
        outcome = self.outcome
        logs = {channel: await self._log(channel) for channel in self.channels}
        outcome.posts = len(self.acknowledged)
        for (channel, sequence), text in self.acknowledged.items():
            outcome.lost += logs[channel][sequence - 1 : sequence] != [text]
        for texts in logs.values():
            outcome.repeated += len(texts) - len(set(texts))
        for reader in self.readers:
            texts = logs[reader.channel_id]
            state = reader.subscription.state
            outcome.deliveries += reader.count
            outcome.reconnects += reader.opens - 1
            outcome.gaps += state.gaps
            outcome.repeated += state.repeats + max(0, reader.count - len(texts))
            outcome.lost += max(0, len(texts) - reader.count)
            whole = hashlib.blake2b(b"".join(text.encode() + b"\n" for text in texts), digest_size=16)
            outcome.out_of_order += reader.count == len(texts) and reader.digest.digest() != whole.digest()

    async def _log(self, channel: str) -> list[str]:
        texts: list[str] = []
        while True:
            page = await self.clients[0].request("GET", f"/channels/{channel}/events?since={len(texts)}&limit=200")
            if not page:
                return texts
            for line in page:
                assert line["sequence"] == len(texts) + 1, "the log is dense"
                texts.append(line["event"]["content"]["content"])


async def run_plan(plan: Plan, directory: Path, say: Callable[[str], None] = lambda line: None) -> Outcome:
    return await Chaos(plan, directory, say).run()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.scenarios.chaos")
    for name, value in (("replicas", 3), ("clients", 200), ("posts", 20_000), ("seed", 1)):
        parser.add_argument(f"--{name}", type=int, default=value)
    options = vars(parser.parse_args())
    with tempfile.TemporaryDirectory(prefix="openguild-chaos-") as directory:
        outcome = anyio.run(run_plan, Plan(**options), Path(directory), lambda line: print(line, flush=True))
    sys.stdout.write(json.dumps(asdict(outcome), indent=2) + "\n")
    return int(bool(outcome.lost or outcome.repeated or outcome.out_of_order or outcome.gaps))


if __name__ == "__main__":
    raise SystemExit(main())
