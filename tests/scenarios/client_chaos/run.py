"""One run: two users and a bot that restarts chat through a server that injects faults from a seed."""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import anyio

from openguild_proto.client import is_temporary
from openguild_runtime.client import (
    ApiError,
    Client,
    Conflict,
    Interrupted,
    LogEvent,
    LogFollowed,
    OutcomeUnknown,
    Posted,
)
from tests.support.waiting import eventually

T = TypeVar("T")

PASSWORD = "correct horse battery"
POSTS = 25  # per writer
RETRY_SECS = 60.0
LEVEL_SECS = 240.0


class Outcome(NamedTuple):
    """The results. `missing`, `repeated`, `unordered`: events of all readers and logs. `doubled`: posts stored more than once."""

    posts: int
    missing: int
    repeated: int
    unordered: int
    doubled: int
    interruptions: int

    @property
    def is_good(self) -> bool:
        return not (self.missing or self.repeated or self.unordered or self.doubled)


def run_javascript(seed: int, url: str, posts: int = POSTS) -> Outcome:
    """Run a seed with the JavaScript client. Raises AssertionError with its output."""
    command = [
        "node",
        "--experimental-websocket",
        str(Path(__file__).with_name("client.mjs")),
        url,
        str(seed),
        str(posts),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    return Outcome(**json.loads(done.stdout))


class Reader:
    """The events of each log that one user has received."""

    def __init__(self) -> None:
        self.heard: dict[str, list[int]] = {}
        self.begun: dict[str, int] = {}
        self.interruptions = 0

    def hear(self, event: object) -> None:
        match event:
            case LogFollowed(log=log, after=after):
                self.begun.setdefault(log, after)
            case LogEvent(log=log, sequence=sequence):
                self.heard.setdefault(log, []).append(sequence)
            case Interrupted():
                self.interruptions += 1


async def run_seed(seed: int, url: str, directory: Path, posts: int = POSTS) -> Outcome:
    """Run one seed. `url`: a server that runs with `--chaos-seed`; `directory`: for the bot's stored positions."""
    chance = random.Random(seed)
    alice_reader, bob_reader, bot_reader = Reader(), Reader(), Reader()
    readers = (alice_reader, bob_reader, bot_reader)
    file = directory / f"bot-{seed}.json"
    async with (
        Client(url, retry_secs=RETRY_SECS) as alice,
        Client(url, retry_secs=RETRY_SECS) as bob,
        Client(url, retry_secs=RETRY_SECS, session_file=file) as bot,
    ):
        names = {client: f"{name}-{seed}" for client, name in ((alice, "alice"), (bob, "bob"), (bot, "bot"))}
        for client, name in names.items():
            await _enter(client, name)
        guild = (await alice.create_guild("tea")).guild_id
        channels = [(await alice.create_channel(guild, name)).channel_id for name in ("one", "two")]
        logs = {f"channel:{one}" for one in channels}
        code = (await alice.create_invite(guild)).code
        for client in (bob, bot):
            await client.accept_invite(code)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_read, alice, alice_reader)
            tasks.start_soon(_read, bob, bob_reader)
            tasks.start_soon(_restarting_bot, bot, bot_reader, chance)
            await eventually(lambda: all(logs <= reader.begun.keys() for reader in readers), secs=LEVEL_SECS)
            async with anyio.create_task_group() as writing:
                for client in (alice, bob):
                    writing.start_soon(_write, client, names[client], channels, random.Random(chance.random()), posts)
            stored = {one: [event async for event in alice.history(one)] for one in channels}
            heads = {f"channel:{one}": len(events) for one, events in stored.items()}
            try:
                await eventually(lambda: all(_is_level(reader, heads) for reader in readers), secs=LEVEL_SECS)
            except TimeoutError:
                heard = [{log: max(reader.heard.get(log, [0])) for log in heads} for reader in readers]
                raise AssertionError(f"seed {seed}: not level: {heard} of {heads}") from None
            tasks.cancel_scope.cancel()
    texts = [event.text for events in stored.values() for event in events if event.event["event_type"] == "message"]
    return Outcome(
        posts=len(texts),
        missing=sum(_missing(reader, heads) for reader in readers),
        repeated=sum(len(heard) - len(set(heard)) for reader in readers[:2] for heard in reader.heard.values()),
        unordered=sum(heard != sorted(heard) for reader in readers[:2] for heard in reader.heard.values()),
        doubled=len(texts) - len(set(texts)) + abs(len(set(texts)) - 2 * posts),
        interruptions=sum(reader.interruptions for reader in readers),
    )


async def _enter(client: Client, name: str) -> None:
    """Register and log in. A registration is not retried: after an unknown outcome the account may exist."""
    while True:
        try:
            await client.register(name, PASSWORD)
        except Conflict:
            pass
        except (ApiError, OutcomeUnknown):
            await anyio.sleep(0.2)
            continue
        await client.login(name, PASSWORD)
        return


async def _read(client: Client, reader: Reader) -> None:
    async with client.gateway() as events:
        async for event in events:
            reader.hear(event)


async def _restarting_bot(bot: Client, reader: Reader, chance: random.Random) -> None:
    """Stop at random events and resume from stored positions: the bot may receive that event again, but misses none."""
    while True:
        ends_after = chance.randrange(10, 40)
        async with bot.gateway() as events:
            async for event in events:
                reader.hear(event)
                ends_after -= 1
                if ends_after == 0:
                    break


async def _write(client: Client, name: str, channels: list[str], chance: random.Random, posts: int) -> None:
    mine: list[tuple[str, Posted]] = []
    for number in range(posts):
        channel = chance.choice(channels)
        mine.append((channel, await _known(partial(client.post, channel, f"{name} {number}"))))
        where, post = chance.choice(mine)
        if chance.random() < 0.3:
            await _known(partial(client.edit, where, post.event_id, f"{name} edits {number}"))
        if chance.random() < 0.3:
            emoji = chance.choice("👍🎉🫖")
            await _known(lambda nonce, where=where, post=post, emoji=emoji: client.react(where, post.event_id, emoji))
        await anyio.sleep(chance.uniform(0, 0.4))


async def _known(send: Callable[..., Awaitable[T]]) -> T:
    """Retry with the same key after an unknown outcome, as docs/client.md says. Raises ApiError."""
    nonce: str | None = None
    while True:
        try:
            return await send(nonce=nonce)
        except OutcomeUnknown as unknown:
            nonce = unknown.nonce
        except ApiError as refusal:
            if not is_temporary(refusal.status):
                raise


def _is_level(reader: Reader, heads: dict[str, int]) -> bool:
    return all(max(reader.heard.get(log, [0])) >= head for log, head in heads.items())


def _missing(reader: Reader, heads: dict[str, int]) -> int:
    return sum(
        len(set(range(reader.begun[log] + 1, head + 1)) - set(reader.heard.get(log, []))) for log, head in heads.items()
    )
