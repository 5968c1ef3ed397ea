"""Changes by authors whose right ends at the same moment, on two real replicas, judged by the order of commits.

`python -m tests.scenarios.races [--rounds 200]` is the long form (`make races`); test_races.py runs a short one. Each round
sends a change to one replica and, at the same time, the end of the right to it to the other. PostgreSQL records when each of
them committed: a change that committed after the end of its author's right is a violation.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, TypeAlias

import anyio
import anyio.to_thread
import asyncpg
import httpx

from openguild_proto.canonical.keys import KeyRing, parse_seed
from openguild_proto.effects.guilds import InsertInvite
from openguild_proto.effects.roles import GrantChannelRole, GrantGuildRole, GrantServerRole, RevokeServerRole
from openguild_proto.records import Author
from openguild_proto.sessions.refresh import new_refresh_token
from openguild_proto.sessions.tokens import Claims, TokenAuthority
from openguild_runtime.embedded import EmbeddedNats, EmbeddedPostgres
from openguild_runtime.storage import migrations
from openguild_runtime.storage.postgres import PostgresStorage
from tests.support.deeds import add_channel, add_guild, add_user, append, control_head, login, new_id
from tests.support.server import SIGNING_KEY, ServerProcess

AT_ONCE = 6  # concurrent cases
LAST_MS, FIRST_MS = 8.0, -6.0  # bounds for the delay from the end of the right to the change

# Returns when the change of a round committed: $1 author, $2 the other member, $3 guild, $4 channel, $5 a word unique to the
# round, $6 the control log's head before the round.
COMMITTED = "SELECT pg_xact_commit_timestamp(xmin) FROM"
CONTROL = f"{COMMITTED} control_log WHERE sequence > $6 AND kind = '%s' AND %s ORDER BY sequence DESC LIMIT 1"
ROWS = {
    "promote": CONTROL % ("member_changed", "user_id = $2"),
    "kick": CONTROL % ("member_removed", "user_id = $2"),
    "invite": f"{COMMITTED} invites WHERE guild_id = $3 AND created_by = $1",
    "create a channel": CONTROL % ("channel_created", "user_id = $1"),
    "rename the channel": f"{COMMITTED} channels WHERE channel_id = $4 AND name = $5",
    "delete the channel": CONTROL % ("channel_deleted", "channel_id = $4"),
    "rename the guild": f"{COMMITTED} guilds WHERE guild_id = $3 AND name = $5",
    "delete the guild": CONTROL % ("guild_deleted", "guild_id = $3"),
    "post": f"{COMMITTED} log_events WHERE log_id = $4 AND nonce = $5",
    "read": f"{COMMITTED} channel_read_state WHERE channel_id = $4 AND user_id = $1",
    "sign a device out": CONTROL % ("sessions_revoked", "$5::uuid = ANY (session_ids)"),
    "create a guild": f"{COMMITTED} guilds WHERE name = $5",
    "join": CONTROL % ("member_joined", "user_id = $1 AND guild_id <> $3"),
}
BY_ROLE = tuple(ROWS)[:9]
Case: TypeAlias = tuple[str, str]  # the event that ends the right, and the change that needs it
CASES: tuple[Case, ...] = (
    *((ending, change) for ending in ("demoted", "removed") for change in BY_ROLE),
    *(("leaves", change) for change in ("promote", "invite", "create a channel", "post", "read")),
    *(("server role revoked", change) for change in (*BY_ROLE, "read")),
    *(("channel role lowered", change) for change in ("rename the channel", "delete the channel", "post")),
    *(("session revoked", change) for change in ROWS),
    ("removed", "read"),
)  # fmt: skip


@dataclass
class Person:
    user_id: str
    token: str
    refresh_token: str

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.token}"}


@dataclass
class Outcome:
    """The results of one case. `violations`: changes that committed after the end of their author's right."""

    violations: int = 0
    done: int = 0  # changes that committed before the end of the right
    refused: int = 0
    statuses: Counter[int] = field(default_factory=Counter)  # of the answers to the changes


class Arena:
    """Two replicas, and a direct connection to their store, which sets each round up."""

    def __init__(
        self, replicas: list[httpx.AsyncClient], storage: PostgresStorage, judge: asyncpg.Pool[Any], rng: Random
    ) -> None:
        self.replicas = replicas
        self.storage = storage
        self.judge = judge
        self.rng = rng
        self.tokens = TokenAuthority(KeyRing(parse_seed(SIGNING_KEY)))
        self.logins = itertools.count(1)

    async def person(self, user_id: str | None = None, device: str = "phone") -> Person:
        """Return a new account, or another device of an existing one."""
        user_id = user_id or await add_user(self.storage)
        number = next(self.logins)
        now_ms = time.time_ns() // 1_000_000
        session = login(user_id, number, device, now_ms)
        await self.storage.perform(session)
        claims = Claims(session.session_id, user_id, None, now_ms * 1000, session.access_expires_ms * 1000)
        return Person(user_id, self.tokens.issue(claims), new_refresh_token(number.to_bytes(16, "big")))

    async def run(self, cases: Sequence[Case], rounds: int) -> dict[Case, Outcome]:
        """Run `rounds` of each case, several cases at once."""
        outcomes = {case: Outcome() for case in cases}
        places = anyio.CapacityLimiter(AT_ONCE)

        async def play(case: Case) -> None:
            async with places:
                for _ in range(rounds):
                    await self._round(*case, outcomes[case])

        async with anyio.create_task_group() as tasks:
            for case in cases:
                tasks.start_soon(play, case)
        return outcomes

    async def _round(self, ending: str, change: str, outcome: Outcome) -> None:
        owner, author, other = await self.person(), await self.person(), await self.person()
        guild = await add_guild(self.storage, owner.user_id)
        channel = await add_channel(self.storage, guild, owner.user_id)
        await self.storage.perform(append(channel))
        now_ms = time.time_ns() // 1_000_000
        match ending:
            case "server role revoked":
                await self.storage.perform(GrantServerRole(user_id=author.user_id, role="admin", now_ms=now_ms))
            case "channel role lowered":
                await self.storage.perform(
                    GrantChannelRole(channel_id=channel, user_id=author.user_id, role="admin", now_ms=now_ms)
                )
            case _:
                await self._grant(guild, author, "admin")
        await self._grant(guild, other, "member")
        word = new_id()
        method, path, body = f"/guilds/{guild}", f"/channels/{channel}", {"name": word}
        request: tuple[str, str, Any]
        match change:
            case "promote":
                request = "PUT", f"{method}/members/{other.user_id}", {"role": "moderator"}
            case "kick":
                request = "DELETE", f"{method}/members/{other.user_id}", None
            case "invite":
                request = "POST", f"{method}/invites", {}
            case "create a channel":
                request = "POST", f"{method}/channels", body
            case "rename the channel" | "delete the channel":
                request = ("PATCH", path, body) if change.startswith("rename") else ("DELETE", path, None)
            case "rename the guild" | "delete the guild":
                request = ("PATCH", method, body) if change.startswith("rename") else ("DELETE", method, None)
            case "post":
                request = "POST", f"{path}/messages", {"content": word, "nonce": word}
            case "read":
                request = "POST", f"{path}/read", {}
            case "sign a device out":
                laptop = login(author.user_id, next(self.logins), "laptop", now_ms)
                await self.storage.perform(laptop)
                word = laptop.session_id
                request = "DELETE", "/sessions/devices/laptop", None
            case "create a guild":
                request = "POST", "/guilds", body
            case _:
                request = "POST", f"/invites/{await self._invite_elsewhere(owner)}/accept", {}
        head = await control_head(self.storage)
        await self._warm(author, owner, channel)
        delay_ms = self.rng.uniform(FIRST_MS, LAST_MS)
        statuses: list[int] = []

        async def act() -> None:
            await anyio.sleep(max(delay_ms, 0) / 1000)
            statuses.append((await self._ask(1, author, *request)).status_code)

        async def end() -> None:
            await anyio.sleep(max(-delay_ms, 0) / 1000)
            await self._end(ending, guild, channel, owner, author)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(end)
            tasks.start_soon(act)
        await self._judge(ending, change, (author, other, guild, channel, word, head), statuses[0], outcome)

    async def _grant(self, guild: str, person: Person, role: str) -> None:
        await self.storage.perform(GrantGuildRole(guild_id=guild, user_id=person.user_id, role=role, now_ms=1))

    async def _invite_elsewhere(self, owner: Person) -> str:
        code = new_id()
        guild = await add_guild(self.storage, owner.user_id)
        invite = InsertInvite(
            author=Author(owner.user_id), code=code, guild_id=guild, max_uses=None, expires_at_ms=None, now_ms=1
        )
        await self.storage.perform(invite)
        return code

    async def _warm(self, author: Person, owner: Person, channel: str) -> None:
        """Let each replica cache the tokens that it will see, so that only the change itself races."""
        for number, person in ((1, author), (0, owner), (0, author)):
            assert (await self._ask(number, person, "GET", f"/channels/{channel}", None)).status_code == 200

    async def _ask(self, number: int, person: Person, method: str, path: str, body: Any) -> httpx.Response:
        return await self.replicas[number].request(method, path, json=body, headers=person.headers)

    async def _end(self, ending: str, guild: str, channel: str, owner: Person, author: Person) -> None:
        member = f"/guilds/{guild}/members/{author.user_id}"
        match ending:
            case "demoted":
                answer = await self._ask(0, owner, "PUT", member, {"role": "guest"})
            case "removed":
                answer = await self._ask(0, owner, "DELETE", member, None)
            case "leaves":
                answer = await self._ask(0, author, "DELETE", f"/guilds/{guild}/members/@me", None)
            case "session revoked":
                answer = await self.replicas[0].post("/sessions/revoke", json={"refresh_token": author.refresh_token})
            case "server role revoked":
                await self.storage.perform(RevokeServerRole(user_id=author.user_id, role="admin", now_ms=1))
                return
            case _:
                await self.storage.perform(
                    GrantChannelRole(channel_id=channel, user_id=author.user_id, role="guest", now_ms=1)
                )
                return
        assert answer.status_code < 300 or answer.status_code == 404, answer.text  # 404: the guild was deleted first

    async def _judge(
        self, ending: str, change: str, row: tuple[Person, Person, str, str, str, int], status: int, outcome: Outcome
    ) -> None:
        author, other, guild, channel, word, head = row
        arguments = (author.user_id, other.user_id, guild, channel, word, head)
        statement = ROWS[change]
        used = [number for number in range(1, 7) if f"${number}" in statement]
        for place, number in enumerate(used, start=1):
            statement = statement.replace(f"${number}", f"${place}")
        changed = await self.judge.fetchval(statement, *(arguments[number - 1] for number in used))
        kinds = (
            ["sessions_revoked"]
            if ending == "session revoked"
            else ["member_changed", "member_removed", "access_changed"]
        )
        ended = await self.judge.fetchval(
            f"{COMMITTED} control_log WHERE sequence > $1 AND user_id = $2 AND kind = ANY ($3)"
            " AND NOT coalesce($4 = ANY (session_ids::text[]), false) ORDER BY sequence LIMIT 1",
            head, author.user_id, kinds, word,
        )  # fmt: skip
        outcome.statuses[status] += 1
        taken_back = changed is None and change == "invite" and status == 201  # an invite ends with its author's right
        if changed is None and not taken_back:
            outcome.refused += 1
        elif changed is not None and ended is not None and changed > ended:
            outcome.violations += 1
        else:
            outcome.done += 1
        assert (status < 300) == (changed is not None or taken_back), (
            f"{ending}, {change}: answered {status}, committed {changed}"
        )


async def three_owners_demote_each_other(arena: Arena) -> int:
    """Let two owners demote each other at once, with a third one present. Return how many of the two are owners afterwards."""
    owner, *rivals = [await arena.person() for _ in range(3)]
    guild = await add_guild(arena.storage, owner.user_id)
    for rival in rivals:
        await arena._grant(guild, rival, "owner")

    async def demote(number: int) -> None:
        path = f"/guilds/{guild}/members/{rivals[1 - number].user_id}"
        answer = await arena._ask(number, rivals[number], "PUT", path, {"role": "guest"})
        assert answer.status_code in {200, 403}, answer.text

    async with anyio.create_task_group() as tasks:
        for number in range(2):
            tasks.start_soon(demote, number)
    count: int = await arena.judge.fetchval(
        "SELECT count(*) FROM guild_memberships WHERE guild_id = $1 AND role = 'owner'", guild
    )
    return count - 1


@asynccontextmanager
async def arena(directory: Path, database_url: str, nats_url: str, seed: int) -> AsyncIterator[Arena]:
    """Start two replicas on a PostgreSQL that records when transactions committed (track_commit_timestamp)."""
    servers = [ServerProcess(directory, DATABASE_URL=database_url, NATS__URL=nats_url) for _ in range(2)]
    with servers[0].start(ready=False), servers[1].start(ready=False):
        for server in servers:
            await anyio.to_thread.run_sync(server.wait_ready)
        async with (
            asyncpg.create_pool(database_url, min_size=1, max_size=AT_ONCE) as judge,
            anyio.create_task_group() as tasks,
            httpx.AsyncClient(base_url=servers[0].base_url, trust_env=False, verify=False, timeout=30) as one,
            httpx.AsyncClient(base_url=servers[1].base_url, trust_env=False, verify=False, timeout=30) as two,
        ):
            storage = PostgresStorage(database_url, tasks)
            await storage.start()
            yield Arena([one, two], storage, judge, Random(seed))
            await storage.aclose()


@asynccontextmanager
async def private_arena(directory: Path, seed: int) -> AsyncIterator[Arena]:
    """Start an arena with its own PostgreSQL and nats-server."""
    postgres = EmbeddedPostgres(directory / "postgres", fsync=False, settings={"track_commit_timestamp": "on"})
    nats = EmbeddedNats(directory / "nats")
    try:
        await anyio.to_thread.run_sync(postgres.start)
        await anyio.to_thread.run_sync(nats.start)
        await migrations.upgrade(postgres.url)
        async with arena(directory, postgres.url, nats.url, seed) as found:
            yield found
    finally:
        await anyio.to_thread.run_sync(nats.stop)
        await anyio.to_thread.run_sync(postgres.stop)


async def main(rounds: int, seed: int, only: str) -> int:
    violations = 0
    with tempfile.TemporaryDirectory(prefix="openguild-races-") as directory:
        os.chmod(directory, 0o755)  # readable by the account that the private servers run as
        async with private_arena(Path(directory), seed) as found:
            outcomes = await found.run([case for case in CASES if only in ": ".join(case)], rounds)
            for (ending, change), outcome in outcomes.items():
                violations += outcome.violations
                print(
                    f"{ending:>20}: {change:<20} {outcome.violations:4} after the end, {outcome.done:4} before it,"
                    f" {outcome.refused:4} refused {dict(outcome.statuses)}"
                )
            if only in "owners demote each other":
                left = Counter([await three_owners_demote_each_other(found) for _ in range(rounds)])
                violations += rounds - left[1]
                print(f"owners demote each other: one is left in {left[1]} of {rounds}")
    print(f"{violations} violations")
    return int(violations > 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200, help="of each case")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="cases that contain this text, such as 'demoted: kick'")
    given = parser.parse_args()
    sys.exit(anyio.run(main, given.rounds, given.seed, given.only))
