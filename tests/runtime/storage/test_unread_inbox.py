"""Unread mentions are found without a look at all that were read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import asyncpg
import pytest
from msgspec.structs import replace

from openguild_proto.effects.mentions import ListMentions
from openguild_proto.effects.roles import GrantGuildRole
from openguild_proto.policy.permissions import ROLES
from openguild_proto.records import Mentions
from openguild_runtime.storage.postgres.mentions import RECENT_MENTIONS, UNREAD_INBOX
from openguild_runtime.storage.postgres.values import moment
from tests.runtime.storage.conftest import opened
from tests.support.deeds import NOW, add_channel, add_guild, add_user
from tests.support.messages import post

pytestmark = pytest.mark.anyio

READ = 5 * RECENT_MENTIONS
BULK = """
INSERT INTO mentions (user_id, log_id, sequence, event_id, created_at)
SELECT $1, $2, n, 'read ' || n, $3::timestamptz + n * interval '1 second' FROM generate_series(1, $4::integer) AS n
"""
MARK = """
INSERT INTO channel_read_state (channel_id, user_id, last_read_sequence, updated_at) VALUES ($1, $2, $3, now())
"""


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from nodes(part)


async def test_an_old_unread_mention_is_found_behind_many_read_ones(database_url: str) -> None:
    looker = await asyncpg.connect(database_url)
    async with opened(database_url, behind_pooler=False) as store:
        owner, reader = await add_user(store), await add_user(store)
        guild = await add_guild(store, owner)
        quiet, busy = await add_channel(store, guild, owner), await add_channel(store, guild, owner)
        await store.perform(GrantGuildRole(guild_id=guild, user_id=reader, role="member", now_ms=NOW))
        await store.perform(replace(post(quiet, owner, "old"), mentions=Mentions(users=(reader,))))
        await looker.execute(BULK, reader, busy, moment(NOW), READ)
        await looker.execute(MARK, busy, reader, READ)
        await looker.execute("VACUUM ANALYZE mentions")
        found = await store.perform(ListMentions(user_id=reader, unread=True, limit=10))
        assert [(mention.channel_id, mention.unread) for mention in found] == [(quiet, True)]
        rows = await looker.fetchval(
            f"EXPLAIN (ANALYZE, FORMAT JSON) {UNREAD_INBOX}", reader, ROLES, True, 10, None, None
        )
        scans = [node for node in nodes(json.loads(rows)[0]["Plan"]) if node.get("Relation Name") == "mentions"]
        read = sum(
            (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"] for node in scans
        )
        assert 0 < read <= 2 * RECENT_MENTIONS, scans
    await looker.close()


async def test_a_full_page_of_newest_unread_mentions_is_in_order(database_url: str) -> None:
    async with opened(database_url, behind_pooler=False) as store:
        owner, reader = await add_user(store), await add_user(store)
        guild = await add_guild(store, owner)
        channels = [await add_channel(store, guild, owner) for _ in range(2)]
        await store.perform(GrantGuildRole(guild_id=guild, user_id=reader, role="member", now_ms=NOW))
        for number in range(6):
            said = post(channels[number % 2], owner, str(number))
            await store.perform(replace(said, now_ms=NOW + number, mentions=Mentions(users=(reader,))))
        pages = [await store.perform(ListMentions(user_id=reader, unread=True, limit=limit)) for limit in (4, None)]
        moments = [[mention.created_at_ms - NOW for mention in page] for page in pages]
        assert moments == [[5, 4, 3, 2], [5, 4, 3, 2, 1, 0]]
