"""Two real servers: events of one reach the other, in order and once, whichever of them is away meanwhile (PROTOCOL 16.8).

The lease of a killed owner expires after 15 seconds, and the next test waits for that.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import asyncpg
import pytest

from openguild_proto.canonical.keys import encode_unpadded
from tests.support.chat import User
from tests.support.databases import Databases
from tests.support.server import ServerProcess
from tests.support.waiting import free_port, wait_until

NORTH, SOUTH = "north.test", "south.test"


class Pair:
    """The server north owns guilds with a channel; bob of south is a member."""

    def __init__(self, directory: Path, databases: dict[str, str]) -> None:
        self.databases = databases
        ports = {name: free_port() for name in databases}
        self.servers = {
            name: ServerProcess(
                directory, port=ports[name], DATABASE_URL=url, SERVER_NAME=name,
                FEDERATION__SIGNING_KEY=encode_unpadded(name.encode().ljust(32, b"k")), FEDERATION__MODE="open",
                FEDERATION__BASE_URL=f"http://127.0.0.1:{ports[name]}", FEDERATION__ALLOW_PRIVATE_ADDRESSES="true",
                FEDERATION__ADDRESSES__0="".join(
                    f"{other}=http://127.0.0.1:{port}" for other, port in ports.items() if other != name
                ),
            )
            for name, url in databases.items()
        }  # fmt: skip
        for server in self.servers.values():
            server.start(ready=False)
        for server in self.servers.values():
            server.wait_ready()
        self.alice, self.bob = (server.chat().user() for server in self.servers.values())
        self.guild = self.channel = ""
        self.count = 0

    def begin(self) -> None:
        """Create a guild for the test."""
        self.guild = self.alice.guild()
        self.channel = self.alice.channel(self.guild)
        self.count = 0
        code = self.alice.invite(self.guild)
        self.bob.ok(self.bob.post(f"/invites/{code}@{NORTH}/accept"))

    def post(self, user: User, count: int = 1) -> None:
        for _ in range(count):
            self.count += 1
            user.ok(user.post(f"/channels/{self.channel}/messages", {"content": f"message {self.count}"}))

    def seen(self, user: User) -> list[str]:
        return [event["content"]["content"] for event in self.events(user) if event["event_type"] == "message"]

    def events(self, user: User) -> list[dict[str, Any]]:
        lines = user.ok(user.get(f"/channels/{self.channel}/events", params={"limit": 200}))
        return [line["event"] for line in lines]

    def wait_level(self, secs: float = 60.0) -> None:
        expected = [f"message {number}" for number in range(1, self.count + 1)]
        assert self.seen(self.alice) == expected
        stored = "SELECT count(*) FROM log_events WHERE log_id = $1 AND event_type = 'message'"
        wait_until(
            lambda: self.row(SOUTH, stored, self.channel) == self.count, secs=secs,
            what=lambda: f"the mirror: {self.row(SOUTH, stored, self.channel)} of {self.count}",
        )  # fmt: skip
        assert self.seen(self.bob) == expected

    def row(self, server: str, query: str, *arguments: Any) -> Any:
        async def ask() -> Any:
            connection = await asyncpg.connect(self.databases[server])
            try:
                return await connection.fetchval(query, *arguments)
            finally:
                await connection.close()

        return asyncio.run(ask())


@pytest.fixture(scope="module")
def servers(module_directory: Path, databases: Databases) -> Iterator[Pair]:
    with databases.database() as north, databases.database() as south:
        made = Pair(module_directory, {NORTH: north, SOUTH: south})
        yield made
        for server in made.servers.values():
            server.__exit__(None, None, None)


@pytest.fixture
def pair(servers: Pair) -> Pair:
    servers.begin()
    return servers


def test_what_the_owner_stores_reaches_the_mirror(pair: Pair) -> None:
    pair.post(pair.alice, 3)
    pair.wait_level()
    pair.post(pair.bob)
    pair.wait_level()
    requests = pair.servers[NORTH].metric("openguild_federation_delivery_requests_total", server=SOUTH)
    assert requests >= 2
    wait_until(
        lambda: pair.servers[NORTH].metric("openguild_federation_behind_events", server=SOUTH) == 0,
        what="the owner to take the answer",
    )


@pytest.mark.parametrize("who", [SOUTH, NORTH])
def test_a_killed_server_comes_back_to_what_it_missed(pair: Pair, who: str) -> None:
    pair.servers[who].stop(signal.SIGKILL)
    if who == SOUTH:
        pair.post(pair.alice, 5)
    pair.servers[who].start()
    pair.post(pair.alice)
    pair.wait_level()
    pair.post(pair.bob)
    pair.wait_level()


def test_a_redaction_reaches_the_mirror(pair: Pair) -> None:
    pair.post(pair.alice)
    pair.wait_level()
    event = pair.events(pair.alice)[-1]
    path = f"/channels/{pair.channel}/events/{quote(event['event_id'], safe='')}"
    pair.alice.ok(pair.alice.request("DELETE", path))

    def has_text() -> bool:
        found = pair.row(SOUTH, "SELECT wire FROM log_events WHERE event_id = $1", event["event_id"])
        return event["content"]["content"].encode() in found

    wait_until(lambda: not has_text(), secs=20, what=lambda: "the text goes")


def test_the_removal_is_the_last_event_and_the_mirror_is_purged(pair: Pair) -> None:
    pair.alice.ok(pair.alice.request("DELETE", f"/guilds/{pair.guild}/members/{pair.bob.user_id}"))
    pair.post(pair.alice, 3)
    purged = "SELECT purged_at IS NOT NULL FROM federation_guilds WHERE guild_id = $1"
    wait_until(lambda: pair.row(NORTH, purged, pair.guild), secs=100, what=lambda: "the purge is noted")
    for table, column in (("guilds", "guild_id"), ("log_events", "log_id"), ("logs", "log_id")):
        assert pair.row(SOUTH, f"SELECT count(*) FROM {table} WHERE {column} = $1", pair.guild) == 0
    assert pair.row(SOUTH, "SELECT count(*) FROM log_events WHERE log_id = $1", pair.channel) == 0
    cursors = "SELECT count(*) FROM federation_cursors WHERE log_id = ANY ($1::uuid[])"
    assert pair.row(NORTH, cursors, [pair.guild, pair.channel]) == 0
    assert pair.bob.get(f"/guilds/{pair.guild}").status_code == 404


def test_a_guild_that_is_deleted_goes_from_the_mirror_at_once(pair: Pair) -> None:
    pair.alice.ok(pair.alice.request("DELETE", f"/guilds/{pair.guild}"))
    wait_until(lambda: pair.bob.get(f"/guilds/{pair.guild}").status_code == 404, secs=20, what=lambda: "the guild goes")
