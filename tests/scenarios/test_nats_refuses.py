"""A NATS that permits less than the server needs: the status for operators, the load on the database, and the shared limits."""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack
from pathlib import Path

import asyncpg

from tests.support.chat import User
from tests.support.nats_config import configured_nats, permissions
from tests.support.server import ServerProcess
from tests.support.waiting import wait_until

WATCHED_SECS = 5
SET_UP = 8 * 8  # transactions that set up a channel and its stream, eight times


async def transactions(url: str) -> int:
    """Return the number of transactions of the database so far."""
    connection = await asyncpg.connect(url)
    try:
        return int(
            await connection.fetchval(
                "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"
            )
        )
    finally:
        await connection.close()


def nats_details(server: ServerProcess) -> str:
    return next(str(part["details"]) for part in server.get("/ready")["components"] if part["name"] == "nats")


def test_too_few_subscriptions_are_no_storm(database_url: str, tmp_path: Path) -> None:
    """The server neither reconnects in a loop nor floods the database and the log."""
    with (
        configured_nats(tmp_path, "max_subscriptions: 5") as nats,
        ServerProcess(tmp_path, DATABASE_URL=database_url, NATS__URL=nats.url) as server,
        ExitStack() as streams,
    ):
        server.wait_ready()
        before, began = asyncio.run(transactions(database_url)), time.monotonic()
        alice = server.chat().user()
        guild = alice.guild()
        for number in range(8):
            streams.enter_context(alice.stream(alice.channel(guild, f"c{number}")))
        wait_until(lambda: "no more subscriptions" in nats_details(server))
        assert server.get("/ready")["status"] == "degraded"
        lines = len(server.records())
        time.sleep(WATCHED_SECS)
        # PostgreSQL counts the transactions of a session that becomes idle up to ten seconds late. Those of the set-up cannot be
        # told from later ones, so the bound includes them.
        ours = asyncio.run(transactions(database_url)) - before
        assert ours <= SET_UP + 10 * (time.monotonic() - began)
        assert len(server.records()) - lines <= 5
        assert server.metric("openguild_nats_reconnects_total") == 0
        assert server.metric("openguild_nats_faults_total", kind="subscriptions") >= 1
        assert [line["level"] for line in server.records() if "max_subscriptions" in line["message"]] == ["WARNING"]


def logins(**denied: str) -> str:
    """Return settings of nats-server with two users, one of whom lacks some permissions."""
    return permissions(**denied).removesuffix("] }") + ', { user: free, password: "pw" }] }'


def test_limits_are_divided_where_their_subject_is_denied(database_url: str, tmp_path: Path) -> None:
    """The subject is denied to one of two replicas, from the start and later, for publishing and subscribing."""
    limit, subject = 20, '"openguild.localhost.*.limits"'
    settings = {"DATABASE_URL": database_url, "SERVER_NAME": "localhost", "NATS__MIN_REPLICAS": 2}
    settings |= {"MESSAGING__MAX_MESSAGES_PER_USER_PER_WINDOW": limit}
    with configured_nats(tmp_path, logins(publish=subject)) as nats, ExitStack() as running:
        denied, free = (
            running.enter_context(ServerProcess(tmp_path, NATS__URL=nats.url_of(login), **settings))
            for login in ("og:pw", "free:pw")
        )

        def admitted() -> int:
            alice = denied.chat().user()
            path = f"/channels/{alice.channel(alice.guild())}/messages"
            sides = [alice, User(free.chat(), alice.name, alice.token, "", "")]
            return sum(sides[turn % 2].post(path, {"content": "x"}).status_code == 200 for turn in range(3 * limit))

        def told(action: str) -> bool:
            return f"does not permit {action} on openguild.localhost.*.limits" in nats_details(denied)

        denied.wait_ready()
        free.wait_ready()
        wait_until(lambda: told("publish"))
        assert (denied.get("/ready")["status"], denied.status("/ready")) == ("degraded", 200)
        assert denied.metric("openguild_nats_denied_subjects") == 1
        wait_until(lambda: denied.metric("openguild_limit_divisor") == free.metric("openguild_limit_divisor") == 2)
        assert limit // 2 <= admitted() <= limit, "a half at each, less what the denied one hears of the other"
        nats.reload(logins())
        wait_until(lambda: denied.metric("openguild_limit_divisor") == free.metric("openguild_limit_divisor") == 1)
        wait_until(lambda: denied.get("/ready")["status"] == "ready")
        nats.reload(logins(subscribe=subject))
        wait_until(lambda: told("subscribe") and denied.metric("openguild_limit_divisor") == 2)
        # The posts are faster than the quarter of a second in which replicas report: one admits its half, the other all.
        assert admitted() <= limit // 2 + limit
        lines = [line["message"] for line in denied.records() if "does not permit" in line["message"]]
        assert len(lines) == 2
        assert all("allow this user of nats-server to publish and subscribe" in line for line in lines)
