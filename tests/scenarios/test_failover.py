"""A stale standby is promoted under running replicas: acknowledged commits are lost, and sequences denote other events."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import asyncpg
import pytest
from websockets.exceptions import InvalidStatus

from tests.conftest import run_apart
from tests.scenarios.test_control_log import close_code, elsewhere, messages
from tests.support.chat import User, receive, texts
from tests.support.server import ServerProcess
from tests.support.stale import StalePostgres
from tests.support.waiting import wait_until

WENT_BACK = "the log of this channel went back; start again"
RENEWED = "the database may have lost its newest commits: every channel has a new epoch, its streams start again"


@pytest.fixture(scope="module")
def postgres_of_two(module_directory: Path) -> Iterator[StalePostgres]:
    """Shared by the tests: each promotion starts a new timeline."""
    server = StalePostgres(module_directory, fsync=False)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def replicas(postgres_of_two: StalePostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[ServerProcess]]:
    directory: Path = tmp_path_factory.mktemp("replicas")
    servers = [ServerProcess(directory, DATABASE_URL=postgres_of_two.url) for _ in range(2)]
    assert servers[0].run_command("migrate").returncode == 0
    with servers[0].start(), servers[1].start():
        yield servers


def epochs(user: User, channels: list[str]) -> list[int]:
    return [user.ok(user.get(f"/channels/{channel}"))["epoch"] for channel in channels]


def announced(servers: list[ServerProcess]) -> int:
    """Return how often the replicas logged that they renewed the epochs."""
    return sum(messages(server).count(RENEWED) for server in servers)


def history(url: str) -> tuple[int, str]:
    found: list[tuple[int, str]] = []

    async def look() -> None:
        connection = await asyncpg.connect(url)
        row = await connection.fetchrow("SELECT renewals, lineage FROM log_history")
        await connection.close()
        found.append((row["renewals"], row["lineage"]))

    run_apart(look)
    return found[0]


def refused(user: User, channel: str, since: int, epoch: int) -> None:
    with pytest.raises(InvalidStatus) as answer, user.stream(channel, since=since, epoch=epoch):
        pass
    assert answer.value.response.status_code == 400
    assert json.loads(answer.value.response.body)["error"] == "invalid_since"
    page = user.get(f"/channels/{channel}/events", params={"since": since, "epoch": epoch})
    assert (page.status_code, page.json()["error"]) == (400, "invalid_since")


def say(user: User, channel: str, prefix: str, count: int) -> None:
    for number in range(count):
        user.say(channel, f"{prefix} {number}")


@pytest.mark.parametrize("timeline", [True, False], ids=["promoted", "snapshot"])
def test_a_stale_standby_is_promoted(
    postgres_of_two: StalePostgres, replicas: list[ServerProcess], timeline: bool
) -> None:
    """The channels include one that nobody follows. Although both replicas notice, the epochs are renewed once."""
    renewals, said = history(postgres_of_two.url)[0], announced(replicas)
    alice = replicas[0].chat().user()
    here, there = alice, elsewhere(replicas[1], alice)
    guild = alice.guild()
    channels = [alice.channel(guild, name) for name in ("followed", "followed there", "unfollowed")]
    for channel in channels:
        say(alice, channel, "kept", 5)
    postgres_of_two.fall_behind()
    wait_until(lambda: all(server.status("/ready") == 200 for server in replicas))
    for channel in channels:
        say(alice, channel, "lost", 5)
    before = epochs(alice, channels)
    assert before == [1, 1, 1]
    with here.stream(channels[0], since=10) as one, there.stream(channels[1], since=9) as two:
        assert texts(receive(two, 1)) == ["lost 4"]
        postgres_of_two.promote(timeline=timeline)
        ends = {close_code(one), close_code(two)}  # an access check may notice the promotion first
        assert ends <= {(1012, WENT_BACK), (1012, "access cannot be checked; reconnect")}
    after = epochs(alice, channels)
    assert not set(after) & set(before)
    for channel in channels:
        say(alice, channel, "new", 10)  # the new log is now longer than the old one was
        refused(there, channel, 10, 1)
    with there.stream(channels[2], since=5, epoch=after[2]) as stream:
        assert texts(receive(stream, 10)) == [f"new {number}" for number in range(10)]
    assert epochs(alice, channels) == after
    assert history(postgres_of_two.url)[0] == renewals + 1
    assert announced(replicas) == said + 1


def test_a_restart_of_the_database_keeps_the_epochs(
    postgres_of_two: StalePostgres, replicas: list[ServerProcess]
) -> None:
    """A crash loses no commit and keeps the timeline, too."""
    assert replicas[1].stop() == 0  # otherwise it may notice the other's renewal only now, and end its streams
    replicas[1].start()
    said = announced(replicas)
    alice = replicas[0].chat().user()
    channel = alice.channel(alice.guild())
    say(alice, channel, "kept", 3)
    with elsewhere(replicas[1], alice).stream(channel, since=3, epoch=1) as stream:
        postgres_of_two.kill()
        wait_until(lambda: replicas[1].status("/ready") == 503)
        postgres_of_two.restart_after_exit()
        wait_until(lambda: all(server.status("/ready") == 200 for server in replicas))
        say(alice, channel, "on", 1)
        assert texts(receive(stream, 1)) == ["on 0"]
    assert (epochs(alice, [channel]), announced(replicas)) == ([1], said)


def test_a_promotion_that_nobody_watched_is_seen_at_the_start(
    postgres_of_two: StalePostgres, replicas: list[ServerProcess]
) -> None:
    said = announced(replicas)
    alice = replicas[0].chat().user()
    channel = alice.channel(alice.guild())
    say(alice, channel, "kept", 5)
    postgres_of_two.fall_behind()
    wait_until(lambda: all(server.status("/ready") == 200 for server in replicas))
    say(alice, channel, "lost", 5)
    assert [server.stop() for server in replicas] == [0, 0]
    postgres_of_two.promote()
    for server in replicas:
        server.start(ready=False)
    for server in replicas:
        server.wait_ready()
    alice = replicas[1].chat().login(alice.name)
    say(alice, channel, "new", 10)
    refused(alice, channel, 10, 1)
    assert announced(replicas) == said + 1


def test_posts_under_way_during_a_promotion(postgres_of_two: StalePostgres, replicas: list[ServerProcess]) -> None:
    """Each post is retried until it is answered. Those that the new database acknowledged are in the log once, without gaps."""
    said = announced(replicas)
    alice = replicas[0].chat().user()
    channel = alice.channel(alice.guild())
    say(alice, channel, "kept", 2)
    postgres_of_two.fall_behind()
    wait_until(lambda: all(server.status("/ready") == 200 for server in replicas))
    promoted, renewed = threading.Event(), threading.Event()
    acknowledged: list[str] = []  # by requests that began after the promotion

    def post(server: ServerProcess, who: int) -> None:
        user = elsewhere(server, alice)
        for number in range(1_000_000):
            text, late = f"{who}-{number}", promoted.is_set()
            body = {"content": text, "nonce": text}
            while (status := user.post(f"/channels/{channel}/messages", body).status_code) != 200:
                assert status == 503
                renewed.wait(0.1)
                late = promoted.is_set()
            if late:
                acknowledged.append(text)
            if late and renewed.wait(0.05):
                return

    with ThreadPoolExecutor(4) as posters:
        futures = [posters.submit(post, replicas[who % 2], who) for who in range(4)]
        wait_until(lambda: len(alice.history(channel)) > 20)
        postgres_of_two.promote()
        promoted.set()
        wait_until(lambda: announced(replicas) > said)
        renewed.set()
        for future in futures:
            future.result(60)
    assert announced(replicas) == said + 1
    epoch = alice.ok(alice.get(f"/channels/{channel}"))["epoch"]
    log = alice.history(channel, since=0, epoch=epoch, limit=1000)
    assert [event["sequence"] for event in log] == list(range(1, len(log) + 1))
    found = texts(log)
    assert len(found) == len(set(found))
    assert set(acknowledged) <= set(found)
    with elsewhere(replicas[1], alice).stream(channel, since=0, epoch=epoch) as stream:
        assert texts(receive(stream, len(log))) == found


def test_a_snapshot_is_put_in_place_and_nobody_follows_a_channel(
    postgres_of_two: StalePostgres, replicas: list[ServerProcess]
) -> None:
    """Neither a timeline nor a stream shows the snapshot, but an event that a replica had stored is missing."""
    said = announced(replicas)
    alice = replicas[0].chat().user()
    channel = alice.channel(alice.guild())
    say(alice, channel, "kept", 5)
    postgres_of_two.fall_behind()
    wait_until(lambda: all(server.status("/ready") == 200 for server in replicas))
    say(alice, channel, "lost", 5)
    postgres_of_two.promote(timeline=False)
    wait_until(lambda: announced(replicas) == said + 1, what="the renewal")
    say(alice, channel, "new", 10)
    refused(alice, channel, 10, 1)
