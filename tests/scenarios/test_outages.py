"""Outages while the server runs, and its recovery without intervention (docs/reliability.md)."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import asyncpg
import httpx
import pytest
from anyio.from_thread import start_blocking_portal

from openguild_proto.canonical.keys import encode_unpadded
from openguild_runtime.embedded import EmbeddedNats, EmbeddedPostgres
from tests.support.busy import fair_secs
from tests.support.chat import User, receive, texts
from tests.support.server import ServerProcess
from tests.support.waiting import wait_until


@pytest.fixture
def own_postgres(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(tmp_path / "data", fsync=False)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def own_nats(tmp_path: Path) -> Iterator[EmbeddedNats]:
    server = EmbeddedNats(tmp_path / "nats-data")
    server.start()
    yield server
    server.stop()


@contextmanager
def locked_table(url: str, table: str) -> Iterator[Callable[[], int]]:
    """Lock a table; yield a function that returns the number of statements that wait for a lock."""
    with start_blocking_portal() as portal:
        connection = portal.call(partial(asyncpg.connect, url))
        portal.call(connection.execute, f"BEGIN; LOCK TABLE {table}")
        waiting = "SELECT count(DISTINCT pid) FROM pg_locks WHERE pg_backend_pid() = ANY (pg_blocking_pids(pid))"
        try:
            yield lambda: portal.call(connection.fetchval, waiting)
        finally:
            portal.call(connection.close)


def migrate(server: ServerProcess) -> None:
    assert server.run_command("migrate").returncode == 0


def test_while_postgres_is_away_posts_fail_and_streams_stay(
    own_postgres: EmbeddedPostgres, nats_server: EmbeddedNats, tmp_path: Path
) -> None:
    server = ServerProcess(tmp_path, DATABASE_URL=own_postgres.url, NATS__URL=nats_server.url)
    migrate(server)
    with server.start():
        alice = server.chat().user()
        channel = alice.channel(alice.guild())
        with alice.stream(channel) as stream:
            alice.say(channel, "before")
            assert texts(receive(stream, 1)) == ["before"]
            own_postgres.kill()
            refused = alice.post(f"/channels/{channel}/messages", {"content": "lost?"})
            assert refused.status_code == 503
            assert refused.json()["error"] == "database_unavailable"
            assert int(refused.headers["retry-after"]) > 0
            wait_until(lambda: server.status("/ready") == 503)
            ready = httpx.get(server.base_url + "/ready", trust_env=False, verify=False)
            assert ready.json()["status"] == "unavailable"
            assert "127.0.0.1" not in ready.text  # no host name and no driver message (PROTOCOL 11.1.4)
            assert server.status("/health") == server.status("/live") == 200
            assert server.metric("openguild_db_ready") == 0
            own_postgres.restart()
            wait_until(lambda: server.status("/ready") == 200)
            assert server.metric("openguild_db_ready") == 1
            alice.say(channel, "after")
            assert texts(receive(stream, 1)) == ["after"]
        assert texts(alice.history(channel)) == ["before", "after"]
        assert server.stop() == 0


def test_slow_reads_leave_posts_and_readiness_alone(database_url: str, tmp_path: Path) -> None:
    """Hanging reads may hold all connections that one user may have: their further reads are `overloaded`, others are served."""
    server = ServerProcess(tmp_path, DATABASE_URL=database_url)
    with server.start(), ThreadPoolExecutor(12) as readers:
        alice, bob = server.chat().user(), server.chat().user()
        guild = alice.guild()
        channel = alice.channel(guild)
        with locked_table(database_url, "invites") as waiting:
            asked = [readers.submit(alice.get, f"/guilds/{guild}/invites") for _ in range(12)]
            wait_until(lambda: waiting() >= 3)
            alice.say(channel, "while they hang")
            assert bob.ok(bob.get("/guilds")) == []
            assert server.status("/ready") == 200
            refused = next(as_completed(asked)).result()
            assert (refused.status_code, refused.json()["error"]) == (503, "overloaded")
            assert int(refused.headers["retry-after"]) > 0
            alice.say(channel, "still")
            assert server.status("/ready") == 200
            wait_until(lambda: sum(answer.done() for answer in asked) == 9)
        assert sorted(answer.result().status_code for answer in asked) == [200] * 3 + [503] * 9
        assert server.stop() == 0


def test_a_server_is_ready_when_other_servers_can_have_its_keys(database_url: str, tmp_path: Path) -> None:
    server = ServerProcess(
        tmp_path, DATABASE_URL=database_url, SERVER_NAME="b.example", FEDERATION__MODE="open",
        FEDERATION__SIGNING_KEY=encode_unpadded(b"b" * 32),
    )  # fmt: skip
    with locked_table(database_url, "federation_keys IN SHARE MODE") as waiting, server.start(ready=False):
        wait_until(lambda: waiting() >= 1)
        assert server.status("/ready") == 503
    with server.start():
        assert server.status("/federation/v1/keys") == 200
        assert server.stop() == 0


def test_the_server_starts_while_postgres_is_away(own_postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    server = ServerProcess(tmp_path, DATABASE_URL=own_postgres.url)
    migrate(server)
    own_postgres.kill()
    with server.start(ready=False):
        wait_until(lambda: server.status("/ready") == 503)
        assert server.status("/live") == 200
        answer = httpx.get(
            server.base_url + "/users/me", headers={"authorization": "Bearer x"}, trust_env=False, verify=False
        )
        assert answer.status_code == 401
        wait_until(lambda: any("waiting for the database" in record["message"] for record in server.records()))
        own_postgres.restart()
        server.wait_ready()
        alice = server.chat().user()
        alice.say(alice.channel(alice.guild()), "served")
        assert server.stop() == 0


def test_an_unmigrated_schema_is_not_served(own_postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    server = ServerProcess(tmp_path, DATABASE_URL=own_postgres.url)
    with server.start(ready=False):
        ready = server.base_url + "/ready"

        wait_until(lambda: server.status("/ready") == 503)

        def components() -> dict[str, str]:
            answer = httpx.get(ready, trust_env=False, verify=False)
            assert answer.status_code == 503
            return {line["name"]: line["status"] for line in answer.json()["components"]}

        wait_until(lambda: components().items() >= {"database": "configured", "migrations": "error"}.items())
        assert server.stop() == 0


def test_nats_away_degrades_and_delivery_goes_on(database_url: str, own_nats: EmbeddedNats, tmp_path: Path) -> None:
    """Local posts are delivered at once, remote ones by the tail check; after NATS returns, both at once."""
    servers = [ServerProcess(tmp_path, DATABASE_URL=database_url, NATS__URL=own_nats.url) for _ in range(2)]
    with servers[0].start(), servers[1].start():
        alice = servers[0].chat().user()
        bob = servers[1].chat().login(alice.name, device="other")
        channel = alice.channel(alice.guild())
        with alice.stream(channel) as here, bob.stream(channel) as there:
            own_nats.kill()
            wait_until(
                lambda: "degraded" in httpx.get(servers[0].base_url + "/ready", trust_env=False, verify=False).text
            )
            assert servers[0].status("/ready") == 200
            assert servers[0].metric("openguild_nats_connected") == 0
            alice.say(channel, "one")
            assert texts(receive(here, 1)) == ["one"]
            assert texts(receive(there, 1)) == ["one"]
            own_nats.restart()
            wait_until(lambda: all(server.metric("openguild_nats_connected") for server in servers))
            alice.say(channel, "two")
            assert texts(receive(here, 1)) == texts(receive(there, 1)) == ["two"]
        assert servers[0].metric("openguild_nats_reconnects_total") == 1
        assert [server.stop() for server in servers] == [0, 0]


def test_posts_on_both_replicas_while_nats_is_away_arrive_within_3_s(
    database_url: str, own_nats: EmbeddedNats, tmp_path: Path
) -> None:
    """A replica's own posts do not hide what NATS has lost."""
    servers = [ServerProcess(tmp_path, DATABASE_URL=database_url, NATS__URL=own_nats.url) for _ in range(2)]
    with servers[0].start(), servers[1].start():
        alice = servers[0].chat().user()
        bob = servers[1].chat().login(alice.name, device="other")
        channel = alice.channel(alice.guild())
        with alice.stream(channel) as here, bob.stream(channel) as there:
            own_nats.kill()
            wait_until(lambda: not any(server.metric("openguild_nats_connected") for server in servers))
            for number in range(3):
                bob.say(channel, f"bob {number}")
                alice.say(channel, f"alice {number}")
                said = fair_secs()
                assert texts(receive(there, 2)) == [f"bob {number}", f"alice {number}"]
                assert texts(receive(here, 2)) == [f"bob {number}", f"alice {number}"]
                assert fair_secs() - said < 3
        assert [server.stop() for server in servers] == [0, 0]


def test_kill_9_of_the_server_loses_nothing_acknowledged(database_url: str, tmp_path: Path) -> None:
    server = ServerProcess(tmp_path, DATABASE_URL=database_url)
    with server.start():
        alice = server.chat().user()
        channel = alice.channel(alice.guild())
        for number in range(20):
            alice.say(channel, str(number))
        assert server.stop(signal.SIGKILL) == -signal.SIGKILL
        server.start()
        assert texts(alice.history(channel)) == [str(number) for number in range(20)]
        assert server.stop() == 0


def test_kill_9_of_postgres_while_posting_loses_nothing_acknowledged(
    own_postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    """Every post that was answered 200 is stored; one answered 503 is retried with its nonce and stored once."""
    server = ServerProcess(tmp_path, DATABASE_URL=own_postgres.url)
    migrate(server)
    with server.start():
        alice = server.chat().user()
        channel = alice.channel(alice.guild())
        for number in range(60):
            if number == 30:
                own_postgres.kill()
            message = {"content": str(number), "nonce": f"n{number}"}
            if alice.post(f"/channels/{channel}/messages", message).status_code != 200:
                own_postgres.restart()
                wait_until(
                    lambda message=message: alice.post(f"/channels/{channel}/messages", message).status_code == 200
                )
        assert texts(alice.history(channel, limit=200)) == [str(number) for number in range(60)]
        assert server.stop() == 0


def test_limits_are_shared_while_nats_is_silent_and_not_given_up(
    database_url: str, own_nats: EmbeddedNats, tmp_path: Path
) -> None:
    """NATS is a black hole: each replica counts as connected, but receives nothing."""
    limit = 30
    limits = {"MESSAGING__MAX_MESSAGES_PER_USER_PER_WINDOW": limit}
    servers = [ServerProcess(tmp_path, DATABASE_URL=database_url, NATS__URL=own_nats.url, **limits) for _ in range(2)]
    migrate(servers[0])
    with servers[0], servers[1]:

        def posting(first: ServerProcess, second: ServerProcess) -> list[Callable[[], int]]:
            """Return functions that post as the same new user at each of two replicas, and return the status."""
            user = first.chat().user()
            path = f"/channels/{user.channel(user.guild())}/messages"
            sides = user, User(second.chat(), user.name, user.token, "", "")
            return [lambda side=side: side.post(path, {"content": "x"}).status_code for side in sides]

        for first, second in (servers, reversed(servers)):
            here, there = posting(first, second)
            assert {here() for _ in range(limit)} == {200}
            wait_until(lambda there=there: there() == 429, what="what one replica has admitted, counted by the other")
        sides = posting(*servers)
        assert own_nats.pid is not None
        os.kill(own_nats.pid, signal.SIGSTOP)
        try:
            wait_until(lambda: all(server.metric("openguild_limit_divisor") == 2 for server in servers))
            admitted = sum(sides[turn % 2]() == 200 for turn in range(2 * limit))
        finally:
            os.kill(own_nats.pid, signal.SIGCONT)
    assert admitted == limit, "twice a half"
