"""Messages and queries of a replica among 3 to 100, each with the same load, on simulated time.

The replicas are the core's, with streams, posts and tail checks, as in tests/simulation, without faults. A number that grows here
with the number of replicas would limit the size of a cluster.
"""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

import msgspec

from openguild_proto.bus.topics import Topic
from openguild_proto.http.message import Headers, Response
from tests.simulation import cluster
from tests.simulation.bus import Link
from tests.simulation.clock import Activity, Clock
from tests.simulation.cluster import Cluster
from tests.simulation.pipes import Pipe
from tests.simulation.storage import Storage
from tests.support.world import World, decoded, request

STREAMS = 4  # per replica, each of another channel; so each channel has as many readers, each at another replica
POSTS_PER_SEC = 1.0  # per replica
SETTLE_SECS, SECS = 20.0, 20.0


class Counts(msgspec.Struct, frozen=True):
    """Counts per second of one replica. `broadcasts`: messages for all replicas."""

    replicas: int
    messages: float
    broadcasts: float
    queries: float
    posts: float
    delivered: float  # events that its streams got


class _Reader:
    """Reads and counts frames by their headers: all of them are short."""

    def __init__(self) -> None:
        self.bytes = 0
        self.pipe: Pipe | None = None

    def opened(self, headers: Headers) -> None:
        """Accept the stream."""

    def arrived(self, data: bytes) -> None:
        self.bytes += data.count(b'"sequence"')
        if self.pipe is not None:
            self.pipe.took(len(data))

    def ended(self, *, reset: bool) -> None:
        raise AssertionError("a stream has ended")


class _Counter:
    def __init__(self) -> None:
        self.heard: Counter[bool] = Counter()
        self.queries = 0

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count all bus messages and database queries of all replicas."""
        bring, submit = Link.bring, Storage.submit

        def brought(link: Link, database: str, channel_id: str | Topic, payload: bytes, lost: int) -> None:
            if isinstance(channel_id, Topic) or channel_id in link.subscribed:
                self.heard[isinstance(channel_id, Topic)] += 1
            bring(link, database, channel_id, payload, lost)

        def submitted(storage: Storage, effect: Any, *more: Any) -> None:
            self.queries += 1
            submit(storage, effect, *more)

        Link.bring, Storage.submit = brought, submitted  # type: ignore[method-assign]  # counted for a while
        try:
            yield
        finally:
            Link.bring, Storage.submit = bring, submit  # type: ignore[method-assign]  # restored


def measure(replicas: int) -> Counts:
    """Run this many replicas, each with the same load."""
    world = World()
    tokens = [world.user(f"user{number}") for number in range(replicas)]
    guild = decoded(world.ask("POST", "/guilds", {"name": "g"}, tokens[0]))["guild_id"]
    code = decoded(world.ask("POST", f"/guilds/{guild}/invites", {}, tokens[0]))["code"]
    for token in tokens[1:]:
        world.ask("POST", f"/invites/{code}/accept", {}, token)
    channels = [
        decoded(world.ask("POST", f"/guilds/{guild}/channels", {"name": f"c{number}"}, tokens[0]))["channel_id"]
        for number in range(replicas)
    ]
    clock, rng = Clock(), Random(replicas)
    former, cluster.REPLICAS = cluster.REPLICAS, replicas
    try:
        run = Cluster(clock, rng, pickle.dumps(world.tables._state), 3_600, _wrong, lambda process: None)
        run.few, run.capacity, run.request_secs = 32, 256, 10.0
        run.start()
        clock.run(1.0)
        readers = [_Reader() for _ in range(replicas * STREAMS)]
        for number, reader in enumerate(readers):
            replica, step = divmod(number, STREAMS)
            channel = channels[(replica + 7 * step) % replicas]
            asked = request("GET", f"/channels/{channel}/ws", None, tokens[replica], upgrade=True)
            reader.pipe = run.opening(replica, asked, reader, _refused)
        posted = [0]
        for replica in range(replicas):
            clock.start(_post(run, replica, tokens[replica], channels[replica], posted))
        clock.run(SETTLE_SECS)
        counter, before, former_posts = _Counter(), sum(reader.bytes for reader in readers), posted[0]
        with counter.counting():
            clock.run(SETTLE_SECS + SECS)
        delivered = sum(reader.bytes for reader in readers) - before
    finally:
        cluster.REPLICAS = former
    each = replicas * SECS
    return Counts(
        replicas=replicas,
        messages=counter.heard[False] / each,
        broadcasts=counter.heard[True] / each,
        queries=counter.queries / each,
        posts=(posted[0] - former_posts) / each,
        delivered=delivered / each,
    )


def _post(run: Cluster, replica: int, token: str, channel: str, posted: list[int]) -> Activity[None]:
    while True:
        yield run.clock.sleep(2 / POSTS_PER_SEC * run.rng.random())
        body = {"content": "hello", "nonce": f"{replica}-{posted[0]}"}
        answer = yield run.sending(replica, request("POST", f"/channels/{channel}/messages", body, token))
        assert answer is not None, "the replica is away"
        assert answer.status == 200, answer.body
        posted[0] += 1


def _refused(answer: Response | None) -> None:
    raise AssertionError(f"a stream was refused: {answer}")


def _wrong(what: str) -> None:
    raise AssertionError(what)
