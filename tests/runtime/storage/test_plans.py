"""Statements of hot paths name their logs or their user, find a log in one partition, and lock no row that all share.

The effects are those that say `divides_by`. The plans are what PostgreSQL has carried out, with rows in all partitions.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import asyncpg
import pytest

from openguild_proto.effects import Effect, StorageEffect
from openguild_proto.effects.accounts import DescribeUser
from openguild_proto.effects.channels import (
    AppendEvent,
    FindChannelAccess,
    FindPosted,
    ListUnread,
    MarkRead,
    PageBounds,
    ReadEvents,
)
from openguild_proto.effects.guilds import FindGuildAccess, ListGuilds
from openguild_proto.effects.logs import FindAccountMemberships, FindLogHead, FindLogs, ReadLogs
from openguild_proto.effects.mentions import ListMentions
from openguild_proto.effects.messages import FindMessage, ListPins, ReadMessages, ReadVersions
from openguild_proto.effects.replica import ReadHeads, ReadVisible
from openguild_proto.effects.roles import GrantGuildRole
from openguild_proto.records import Author, ClearReactions, Edit, LogPart, Pin, React, Redact
from openguild_proto.schemas.log_writer import LogWriter
from openguild_runtime.storage.postgres import (
    ban_checks,
    bans,
    ended_mirrors,
    federation,
    guilds,
    handovers,
    pending_leaves,
    remote_members,
    takeovers,
)
from openguild_runtime.storage.postgres.access import find_access_and_page, find_channel_accesses
from openguild_runtime.storage.postgres.append import append_batch
from openguild_runtime.storage.postgres.mode import Mode
from openguild_runtime.storage.postgres.store import PERFORMERS
from openguild_runtime.storage.postgres.transaction import run_transaction
from openguild_runtime.storage.postgres.values import Connection, moment
from tests.runtime.storage.conftest import opened
from tests.support.deeds import NOW, add_channel, add_guild, add_user
from tests.support.messages import changing, post, stored
from tests.support.plans import PlanReader, Statement, Touched
from tests.support.world import World, decoded

pytestmark = pytest.mark.anyio

WRITER = LogWriter("here.test", None)
PARTITION = re.compile(r"(log_events)_\d+")
# The tables that grow with the logs or the users, and the columns by which their rows are found.
DIVIDED = {
    "log_events": {"log_id"},
    "logs": {"log_id"},
    "message_states": {"log_id"},
    "reactions": {"log_id"},
    "mentions": {"log_id", "user_id"},
    "mentions_of_many": {"log_id"},
    "channels": {"channel_id", "guild_id"},
    "channel_memberships": {"channel_id", "user_id"},
    "channel_read_state": {"channel_id", "user_id"},
    "guilds": {"guild_id"},
    "guild_memberships": {"guild_id", "user_id"},
    "guild_timeouts": {"user_id"},
    "users": {"user_id"},
    "user_roles": {"user_id"},
    "sessions": {"session_id", "family_id", "user_id"},
    "refresh_families": {"family_id", "user_id"},
}
# Rows beside those of the tests: 8,000 events in 2,000 channels of 1,000 guilds, 2,000 users.
FILLING = (
    """
    users (user_id, username, username_key, password_hash, created_at, updated_at)
    SELECT gen_random_uuid(), 'u' || n, 'u' || n, '', now(), now() FROM generate_series(1, 2000) AS n
    """,
    "user_roles SELECT user_id, 'member', now() FROM users",
    "guilds SELECT gen_random_uuid(), n::text, now() FROM generate_series(1, 1000) AS n",
    """
    guild_memberships SELECT guild_id, user_id, 'member', now() FROM (
        SELECT guild_id, row_number() OVER () AS n FROM guilds) AS g JOIN (
        SELECT user_id, row_number() OVER () AS n FROM users) AS u ON u.n % 500 = g.n % 500
    """,
    "guild_timeouts SELECT guild_id, user_id, now() + interval '1 hour' FROM guild_memberships",
    "guild_bans SELECT guild_id, gen_random_uuid(), guild_id, now() FROM guilds, generate_series(1, 3) AS n",
    "channels SELECT gen_random_uuid(), guild_id, n::text, now() FROM guilds, generate_series(1, 2) AS n",
    "logs SELECT channel_id, 'channel', 1, 4, 4 FROM channels",
    "logs SELECT guild_id, 'guild', 1, 0, 0 FROM guilds",
    "logs SELECT user_id, 'user', 1, 0, 0 FROM users",
    """
    log_events SELECT log_id, n, log_id || ':' || n, 'message', 'somebody', 'wire', NULL, '', n, NULL, now()
    FROM logs, generate_series(1, 4) AS n WHERE head_sequence = 4
    """,
    "channel_memberships SELECT channel_id, user_id, 'member', now() FROM channels JOIN guild_memberships USING (guild_id)"
    " WHERE random() < 0.05",
    "channel_read_state SELECT channel_id, user_id, 0, 0, 0, now() FROM channels JOIN guild_memberships USING (guild_id)"
    " WHERE random() < 0.1",
    """
    message_states SELECT log_id, n, n, NULL, NULL, 0, NULL, NULL, 0, '[]', false
    FROM logs, generate_series(1, 2) AS n WHERE head_sequence = 4
    """,
    "reactions SELECT log_id, 1, n::text, 'somebody' FROM logs, generate_series(1, 2) AS n WHERE head_sequence = 4",
    "mentions SELECT user_id, channel_id, 1, 'e', now() FROM channel_memberships",
    "mentions_of_many SELECT log_id, n, 'e', now(), 's', '{}', true FROM logs, generate_series(1, 2) AS n",
)


class Place(NamedTuple):
    """A channel with a reader who may do everything there. `events`: ids of messages."""

    guild: str
    channel: str
    user: str
    events: Sequence[str]


@pytest.fixture(scope="module")
async def places(module_database: str) -> tuple[Place, Place]:
    """Two channels of one guild, each with a user who uses it."""
    async with opened(module_database, behind_pooler=False) as store:
        owner = await add_user(store)
        guild = await add_guild(store, owner)
        found = []
        for name in ("one", "other"):
            user = await add_user(store)
            await store.perform(GrantGuildRole(guild_id=guild, user_id=user, role="moderator", now_ms=NOW))
            channel = await add_channel(store, guild, owner, name)
            messages = [await stored(store, post(channel, user, f"hello {n}", nonce=f"n{n}")) for n in range(6)]
            for message in messages[4:]:
                await stored(store, changing(channel, user, React(message.event_id, "e", adds=True)))
            found.append(Place(guild, channel, user, [message.event_id for message in messages]))
    connection = await asyncpg.connect(module_database)
    for statement in FILLING:
        await connection.execute(f"INSERT INTO {statement} ON CONFLICT DO NOTHING")
    await connection.execute("ANALYZE")
    await connection.close()
    return found[0], found[1]


def examples(at: Place) -> list[StorageEffect[Any]]:
    """Each way of the hot effects."""
    guild, channel, user, events = at
    page = [FindChannelAccess(channel_id=channel, user_id=user, page=PageBounds(5, *bounds)) for bounds in PAGES]
    changes = [
        Edit(events[0], "other"), React(events[1], "x", adds=True), Pin(events[2], pins=True), Redact(events[3]),
        *(ClearReactions(event, emoji) for event, emoji in zip(events[4:6], ("e", None), strict=True)),
    ]  # fmt: skip
    return [
        FindChannelAccess(channel_id=channel, user_id=user),
        *page,
        post(channel, user, "new"),
        post(channel, user, "an answer", reply_to=events[4]),
        *(changing(channel, user, change) for change in changes),
        FindPosted(channel_id=channel, sender_id=user, nonce="n1"),
        *(ReadEvents(log_id=channel, limit=5, after=after, before=before) for after, before in PAGES),
        MarkRead(author=Author(user), channel_id=channel, sequence=3, now_ms=NOW),
        MarkRead(author=Author(user), channel_id=channel, sequence=None, now_ms=NOW),
        ListUnread(user_id=user, limit=50),
        FindGuildAccess(guild_id=guild, user_id=user),
        ListGuilds(user_id=user, limit=5),
        DescribeUser(user_id=user),
        FindLogHead(log_id=channel),
        FindLogs(user_id=user, log_ids=(channel, guild, user)),
        FindAccountMemberships(user_id=user),
        ReadLogs(parts=(LogPart(channel, 1, 5),)),
        ReadMessages(channel_id=channel, reader_id=user, limit=5),
        ReadMessages(channel_id=channel, reader_id=user, limit=5, around=3),
        FindMessage(channel_id=channel, reader_id=user, event_id=events[5]),
        ListPins(channel_id=channel, reader_id=user, limit=5),
        ReadVersions(channel_id=channel, reader_id=user, event_id=events[0]),
        ListMentions(user_id=user, limit=20),
        ReadHeads(channel_ids=(channel,)),
        ReadVisible(user_id=user, max_channels=10),
    ]


PAGES: tuple[tuple[int | None, int | None], ...] = ((None, None), (2, None), (None, 4))


@asynccontextmanager
async def rolled_back(connection: Connection, effect: StorageEffect[Any]) -> AsyncIterator[None]:
    """Whatever the effect does within is undone."""
    snapshot = PERFORMERS[type(effect)][1] is Mode.SNAPSHOT
    transaction = connection.transaction(isolation="repeatable_read" if snapshot else "read_committed")
    await transaction.start()
    try:
        yield
    finally:
        await transaction.rollback()


async def perform(connection: Connection, effect: StorageEffect[Any]) -> object:
    """As the store does, with a connection of ours."""
    function, mode = PERFORMERS[type(effect)]
    match effect, mode:
        case AppendEvent(), _:
            return await append_batch(connection, [effect], 300, WRITER)
        case FindChannelAccess(page=None), _:
            return await find_channel_accesses(connection, [effect])
        case FindChannelAccess(page=PageBounds() as page), _:
            return await find_access_and_page(connection, effect, page)
        case _, Mode.GROUPED:
            return await function(connection, [effect])
        case _, Mode.TRANSACTION | Mode.SNAPSHOT:
            snapshot = mode is Mode.SNAPSHOT
            return await run_transaction(connection, function, effect, writer=WRITER, snapshot=snapshot)
    return await function(connection, effect)


def faults(effect: StorageEffect[Any], statements: Sequence[Statement], shared: set[str]) -> list[str]:
    """What a hot path may not do."""
    found = []
    parts = {touched.table for each in statements for touched in each.touched if PARTITION.fullmatch(touched.table)}
    if effect.divides_by == "log" and len(parts) > 1:
        found.append(f"{len(parts)} partitions: {sorted(parts)}")
    for statement in statements:
        for touched in statement.touched:
            table = PARTITION.sub(r"\1", touched.table)
            keys = DIVIDED.get(table)
            if keys is not None and not any(re.search(rf"\b{key}\b", touched.condition) for key in keys):
                found.append(f"{touched.node} of {table} by {touched.condition or 'nothing'}: {statement.text[:200]}")
        found += [f"locks or writes {table}, a row that all share" for table in statement.locked & shared]
    return [f"{type(effect).__name__}: {fault}" for fault in found]


@pytest.mark.parametrize("generic", [True, False], ids=["generic", "custom"])
async def test_hot_statements_find_rows_of_one_partition(
    module_database: str, places: tuple[Place, Place], generic: bool
) -> None:
    async with PlanReader.connected(module_database, generic=generic) as reader:
        tables = await reader.connection.fetch(
            "SELECT table_name FROM information_schema.columns WHERE column_name = 'single' AND table_schema = 'public'"
        )
        shared = {row["table_name"] for row in tables}
        assert "control_head" in shared
        await reader.taken()
        found: list[str] = []
        for effect in examples(places[0]):
            async with rolled_back(reader.connection, effect):
                await perform(reader.connection, effect)
            statements = await reader.taken()
            assert any(statement.touched for statement in statements), effect
            found += faults(effect, statements, shared)
    assert found == [], "\n".join(found)


async def test_hot_statements_wait_for_nobody_in_another_channel(
    module_database: str, places: tuple[Place, Place]
) -> None:
    """While each is done in one channel, it is done in another one of the guild, by another user."""
    async with (
        PlanReader.connected(module_database, generic=True) as one,
        PlanReader.connected(module_database, generic=True) as other,
    ):
        for here, there in zip(*(examples(place) for place in places), strict=True):
            async with rolled_back(one.connection, here), rolled_back(other.connection, there):
                await perform(one.connection, here)
                await perform(other.connection, there)  # raises LockNotAvailableError, if it had to wait


@pytest.mark.parametrize("generic", [True, False], ids=["generic", "custom"])
@pytest.mark.parametrize(
    "statement", [guilds.MEMBERSHIP_COUNTS, pending_leaves.ROLES], ids=["removal", "pending leave"]
)
async def test_owners_are_counted_without_the_other_members(
    module_database: str, places: tuple[Place, Place], statement: str, generic: bool
) -> None:
    async with PlanReader.connected(module_database, generic=generic) as reader:
        given = [places[0].guild, places[0].user, "o"][: statement.count("$3") + 2]
        plan = await reader.connection.fetch(f"EXPLAIN {statement}", *given)
    assert "guild_memberships_owners" in "".join(line[0] for line in plan)


OF_GUILD = {  # with what they are given beside the guild
    "a first join": (remote_members.BEGIN_AT_HEADS, "peer.test"),
    "other epochs": (remote_members.MOVE_TO_EPOCHS, "peer.test"),
    "the logs": (handovers.LOGS,),
    "no cursors": (handovers.END_MIRRORING[2],),
    "handed over": (handovers.END_MIRRORING[4],),
    "taken": (takeovers.RENEW, 7),
    "delivered": (takeovers.DELIVER, moment(NOW)),
}


@pytest.mark.parametrize("generic", [True, False], ids=["generic", "custom"])
@pytest.mark.parametrize("asked", OF_GUILD.values(), ids=OF_GUILD)
async def test_the_logs_of_a_guild_are_found_without_the_other_logs(
    module_database: str, places: tuple[Place, Place], asked: tuple[Any, ...], generic: bool
) -> None:
    """The guild is locked meanwhile, and at a first join the control log."""
    statement, *given = asked
    async with PlanReader.connected(module_database, generic=generic) as reader:
        plan = await reader.connection.fetch(f"EXPLAIN {statement}", places[0].guild, *given)
    whole = [line[0] for line in plan if re.search("Seq Scan on (logs|federation_cursors)", line[0])]
    assert whole == []


@pytest.mark.parametrize("generic", [True, False], ids=["generic", "custom"])
@pytest.mark.parametrize("statement", [ended_mirrors.HAS_MEMBERS, federation.READABLE], ids=["removal", "page"])
async def test_members_of_another_server_are_found_without_the_other_users(
    module_database: str, places: tuple[Place, Place], statement: str, generic: bool
) -> None:
    of = places[0].guild if statement is ended_mirrors.HAS_MEMBERS else places[0].channel
    async with PlanReader.connected(module_database, generic=generic) as reader:
        plan = await reader.connection.fetch(f"EXPLAIN {statement}", "peer.test", of)
    lines = [line[0] for line in plan]
    assert any("users_origin" in line for line in lines), lines
    assert not any("Seq Scan on users" in line for line in lines), lines


@pytest.mark.parametrize("generic", [True, False], ids=["generic", "custom"])
@pytest.mark.parametrize(
    ("statement", "index"),
    [(ban_checks.IS_BANNED, "guild_bans_pkey"), (bans.COUNT, "guild_bans_"), (bans.LIST, "guild_bans_banned")],
    ids=["join", "count", "list"],
)
async def test_bans_are_found_by_their_guild(
    module_database: str, places: tuple[Place, Place], statement: str, index: str, generic: bool
) -> None:
    given = {bans.LIST: [10, None, None], ban_checks.IS_BANNED: [places[0].user]}.get(statement, [])
    async with PlanReader.connected(module_database, generic=generic) as reader:
        await reader.connection.fetch(statement, places[0].guild, *given)
        (carried_out,) = await reader.taken()
        plan = await reader.connection.fetch(f"EXPLAIN {statement}", places[0].guild, *given)
    assert [(touched.table, "guild_id" in touched.condition) for touched in carried_out.touched] == [
        ("guild_bans", True)
    ]
    assert index in "".join(line[0] for line in plan)


def test_the_plan_reader_sees_what_is_wrong() -> None:
    """A statement that looks for an event in all logs, and one that counts in a row that all share."""
    ids = Touched("log_events_1", "Index Scan", "(event_id = $1)"), Touched("log_events_2", "Seq Scan", "")
    statements = [Statement("SELECT", ids, frozenset()), Statement("UPDATE", (), frozenset({"control_head"}))]
    found = faults(FindLogHead(log_id="c"), statements, {"control_head"})
    assert [fault.partition(":")[2].split()[0] for fault in found] == ["2", "Index", "Seq", "locks"]


def test_each_effect_of_a_hot_path_has_an_example() -> None:
    place = Place("g", "c", "u", [f"e{n}" for n in range(6)])
    shown = {type(effect) for effect in examples(place)}
    assert shown == {effect for effect in PERFORMERS if issubclass(effect, StorageEffect) and effect.divides_by}


def test_hot_routes_perform_hot_effects() -> None:
    """A route that reads in another way than before shows here, and its effect says then what it is divided by."""
    world = World()
    token = world.user("alice")
    guild = decoded(world.ask("POST", "/guilds", {"name": "g"}, token))["guild_id"]
    channel = decoded(world.ask("POST", f"/guilds/{guild}/channels", {"name": "c"}, token))["channel_id"]
    performed: set[type[Effect[Any]]] = set()

    def ask(method: str, path: str, body: Any = None) -> Any:
        answer = world.ask(method, path, body, token, before=lambda _place, effect: performed.add(type(effect)))
        assert answer.status == 200, (path, answer.body)
        return decoded(answer)

    at = f"/channels/{channel}"
    event = ask("POST", f"{at}/messages", {"content": "hello"})["event_id"]
    ask("POST", f"{at}/messages", {"content": "an answer", "reply_to": event})
    ask("PATCH", f"{at}/events/{event}", {"content": "hello again"})
    for path in ("events", "events?since=0", "messages", f"messages/{event}", f"messages/{event}/versions", "pins"):
        ask("GET", f"{at}/{path}")
    ask("POST", f"{at}/read", {})
    ask("GET", "/channels/unread")
    ask("POST", "/sync", {"positions": [{"log": f"channel:{channel}", "epoch": 1, "sequence": 0}]})
    hot = {effect for effect in performed if issubclass(effect, StorageEffect)}
    assert {effect.__name__ for effect in hot if effect.divides_by is None} == set()
    assert len(hot) > 8


@pytest.mark.parametrize("generic", [True, False], ids=["generic", "custom"])
async def test_a_page_of_members_reads_their_own_timeouts_alone(
    module_database: str, places: tuple[Place, Place], generic: bool
) -> None:
    """Also where PostgreSQL would rather read all of the guild, as it does while its statistics are young."""
    statement = f"{guilds.MEMBER} WHERE guild_id = $1 ORDER BY joined_at, user_id LIMIT 100"
    async with PlanReader.connected(module_database, generic=generic) as reader:
        await reader.connection.execute("SET enable_nestloop = off")
        plan = await reader.connection.fetch(f"EXPLAIN {statement}", places[0].guild)
    lines = [line[0].strip() for line in plan]
    of_timeouts = lines[next(place for place, line in enumerate(lines) if "guild_timeouts" in line) :]
    conditions = [line for line in of_timeouts if line.startswith("Index Cond")]
    assert any("user_id" in condition for condition in conditions), lines
