"""Two servers, a primary and its streaming standby: counts posts that are lost or repeated, and reads that miss a post."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.scenarios.failover.client import Author, Poster, Reader
from tests.support.server import ServerProcess
from tests.support.standby import PrimaryPostgres, StandbyPostgres, both
from tests.support.waiting import wait_until

CHANNELS = 16
PAGE = 1000


class Stage(NamedTuple):
    """All processes. Both servers know both database hosts, and read from the standby."""

    primary: PrimaryPostgres
    standby: StandbyPostgres
    servers: Sequence[ServerProcess]

    @property
    def ports(self) -> list[int]:
        return [server.port for server in self.servers]


@contextmanager
def staged(directory: Path, *, nats_url: str, fsync: bool) -> Iterator[Stage]:
    """Start everything, with a synchronous standby: a commit is acknowledged when both have it on disk."""
    primary = PrimaryPostgres(directory / "primary", fsync=fsync)
    primary.start()
    settings = {"DATABASE_URL": primary.url, "NATS__URL": nats_url}
    assert ServerProcess(directory, **settings).run_command("migrate").returncode == 0
    standby = StandbyPostgres(directory / "standby", primary, fsync=fsync)
    standby.start()
    primary.make_synchronous()
    try:
        settings |= {"DATABASE_URL": both(primary, standby), "DATABASE__REPLICA_URLS": standby.url}
        servers = [ServerProcess(directory, DATABASE__REPLICA_WAIT_SECS=5, **settings) for _ in range(2)]
        with servers[0].start(), servers[1].start():
            wait_until(
                lambda: all(served_by(server)["serving"] for server in servers),
                what=lambda: f"reads from the standby: {servers[0].tail()}",
            )
            yield Stage(primary, standby, servers)
    finally:
        standby.stop()
        primary.stop()


def authors_of(stage: Stage, count: int = CHANNELS) -> list[Author]:
    """Create this many users, each with a channel."""
    chat = stage.servers[0].chat()
    found = []
    for _ in range(count):
        user = chat.user()
        found.append(Author(user.token, user.channel(user.guild())))
    return found


def served_by(server: ServerProcess) -> Counter[str]:
    """Return how many reads the standby and the primary have answered, and whether the standby is in use."""
    text = server.chat().http.get("/metrics").text
    found = Counter({"serving": 0, "standby": 0, "primary": 0})
    for labels, value in re.findall(r"^openguild_standby_(?:serving|reads_total)\{(.*)\} (\S+)$", text, re.M):
        by = re.search(r'\bby="(\w+)"', labels)
        found[by[1] if by else "serving"] += int(float(value))
    return found


class Failover(NamedTuple):
    """The fate of the posts. `back_secs`: from the kill to the first acknowledged post that began after it; `all_back_secs`: until
    every author has one.
    """

    posts: int
    lost: int
    repeated: int
    in_order: bool
    back_secs: float
    all_back_secs: float
    refused: frozenset[int]

    @property
    def is_good(self) -> bool:
        return self.lost == self.repeated == 0 and self.in_order and self.all_back_secs < 10


async def fail_over(
    stage: Stage, authors: Sequence[Author], *, rate: float, secs: float, then: Callable[[], Awaitable[None]]
) -> Failover:
    """Kill the primary after `secs`, promote the standby, run `then` while posts continue, and go on for `secs` after that."""
    posters = [Poster(author, number, stage.ports) for number, author in enumerate(authors * max(1, int(rate / 100)))]
    until = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        for poster in posters:
            tasks.create_task(poster.run(len(posters) / rate, until))
        await asyncio.sleep(secs)
        await asyncio.to_thread(stage.primary.kill)
        killed = time.monotonic()
        await asyncio.to_thread(stage.standby.promote)
        while any(_first_after(poster, killed) is None for poster in posters):
            assert time.monotonic() - killed < 60, "writes do not come back"
            await asyncio.sleep(0.02)
        await then()
        await asyncio.sleep(secs)
        until.set()
    back = [_first_after(poster, killed) or float("inf") for poster in posters]
    lost, repeated, in_order = judge(stage, authors, posters)
    return Failover(
        sum(len(poster.acknowledged) for poster in posters),
        lost, repeated, in_order, min(back) - killed, max(back) - killed,
        frozenset().union(*(poster.refused for poster in posters)),
    )  # fmt: skip


def _first_after(poster: Poster, moment: float) -> float | None:
    """Return when the first post that began after a moment was acknowledged; None if none was."""
    return next((end for begin, end in poster.acknowledged.values() if begin > moment), None)


def judge(stage: Stage, authors: Sequence[Author], posters: Sequence[Poster]) -> tuple[int, int, bool]:
    """Compare acknowledged posts with the logs. Return how many are lost and repeated, and whether sequences have no gaps."""
    found: Counter[tuple[str, str]] = Counter()
    in_order = True
    for author in authors:
        log = read_log(stage.servers[-1], author)
        in_order = in_order and [sequence for sequence, _ in log] == list(range(1, len(log) + 1))
        found.update((author.channel, text) for _, text in log)
    wanted = {(poster.author.channel, text) for poster in posters for text in poster.acknowledged}
    return len(wanted - found.keys()), sum(count > 1 for count in found.values()), in_order


def read_log(server: ServerProcess, author: Author) -> list[tuple[int, str]]:
    """Return the sequences and texts of a channel."""
    http, log = server.chat().http, []
    while True:
        params = {"since": log[-1][0] if log else 0, "limit": PAGE}
        answer = http.get(
            f"/channels/{author.channel}/events", params=params, headers={"authorization": f"Bearer {author.token}"}
        )
        assert answer.status_code == 200, answer.text
        page = answer.json()
        if not page:
            return log
        log += [(line["sequence"], line["event"]["content"]["content"]) for line in page]


class OwnReads(NamedTuple):
    """Reads of the author's newest write at another server. `by_standby`: how many of them the standby served."""

    reads: int
    missed: int
    by_standby: int
    secs: float


async def read_own(stage: Stage, authors: Sequence[Author], reads: int) -> OwnReads:
    """Let each author post and read, one after another."""
    before = served_by(stage.servers[-1])
    readers = [Reader(author, number, stage.ports) for number, author in enumerate(authors)]
    began = time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        for reader in readers:
            tasks.create_task(reader.run(-(-reads // len(readers))))
    secs = time.monotonic() - began
    grown = served_by(stage.servers[-1]) - before
    return OwnReads(sum(each.reads for each in readers), sum(each.missed for each in readers), grown["standby"], secs)
