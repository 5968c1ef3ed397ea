"""A ban beside whatever else makes or changes a member, both in transactions at once: no banned user is a member."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import anyio
import asyncpg
import pytest

from openguild_proto.effects.bans import BanUser, ListBans, UnbanUser
from openguild_proto.effects.base import StorageEffect
from openguild_proto.effects.guilds import AcceptInvite, FindInvite, ListMembers, SetMemberRole
from openguild_proto.effects.mirrors import JoinFromServer
from openguild_proto.effects.roles import GrantGuildRole
from openguild_proto.errors import ErrorCode, Refusal
from openguild_proto.mirror_records import GuildBan, RemoteUser
from openguild_proto.records import Author, LimitReached, MemberChange
from openguild_runtime.storage.postgres import PostgresStorage
from tests.support.deeds import NOW, add_guild, add_user, new_id
from tests.support.guild_deeds import accept, invite
from tests.support.peers import PEER
from tests.support.waiting import eventually

pytestmark = pytest.mark.anyio

WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


class Scene(NamedTuple):
    """A guild with its owner, an invite to it, and the user whom it is about."""

    store: PostgresStorage
    url: str
    owner: str
    guild: str
    code: str
    bob: str


@pytest.fixture
async def scene(new_database: Any) -> AsyncIterator[Scene]:
    url = new_database()
    async with anyio.create_task_group() as tasks:
        store = PostgresStorage(url, tasks, pool_size=8)
        await store.start()
        owner, bob = await add_user(store), await add_user(store)
        guild = await add_guild(store, owner)
        yield Scene(store, url, owner, guild, await invite(store, guild, owner), bob)
        await store.aclose()


def ban(scene: Scene, user_id: str, **more: Any) -> BanUser:
    return BanUser(author=Author(scene.owner), guild_id=scene.guild, user_id=user_id, now_ms=NOW, **more)


async def outcome_of(scene: Scene, effect: StorageEffect[Any]) -> object:
    try:
        return await scene.store.perform(effect)
    except Refusal as refusal:
        return refusal.code


async def in_turn(scene: Scene, *effects: StorageEffect[Any], lock: str, key: str) -> list[object]:
    """Perform the effects so that all have begun, and wait for a lock or for each other, before the first one goes on."""
    holder, looker = await asyncpg.connect(scene.url), await asyncpg.connect(scene.url)
    outcomes: list[object] = [None] * len(effects)

    async def perform(number: int, effect: StorageEffect[Any]) -> None:
        outcomes[number] = await outcome_of(scene, effect)

    async with anyio.create_task_group() as both, holder.transaction():
        await holder.execute(lock, key)
        for number, effect in enumerate(effects):
            both.start_soon(perform, number, effect)

            async def waits(count: int = number + 1) -> bool:
                return bool(await looker.fetchval(WAITING) == count)

            await eventually(waits, what="one more that waits")
    await holder.close()
    await looker.close()
    return outcomes


HOLD_GUILD_LOG = "SELECT FROM logs WHERE log_id = $1 FOR UPDATE"


async def standing(scene: Scene) -> tuple[set[str], set[str]]:
    members = await scene.store.perform(ListMembers(scene.guild))
    bans = await scene.store.perform(ListBans(scene.guild))
    return {member.user_id for member in members}, {line.user_id for line in bans}


def local_join(scene: Scene) -> AcceptInvite:
    return accept(scene.code, scene.bob)


def remote_join(scene: Scene, user_id: str) -> JoinFromServer:
    return JoinFromServer(PEER, RemoteUser(user_id, "eve"), scene.code, "member", NOW, 1_000, wants_snapshot=True)


async def test_a_join_that_waits_for_a_ban_is_refused(scene: Scene) -> None:
    made, joined = await in_turn(scene, ban(scene, scene.bob), local_join(scene), lock=HOLD_GUILD_LOG, key=scene.guild)
    assert isinstance(made, GuildBan)
    assert joined is ErrorCode.BANNED
    assert await standing(scene) == ({scene.owner}, {scene.bob})
    found = await scene.store.perform(FindInvite(code=scene.code))
    assert found is not None
    assert found.uses == 0


async def test_a_ban_that_waits_for_a_join_removes_the_member(scene: Scene) -> None:
    _, made = await in_turn(scene, local_join(scene), ban(scene, scene.bob), lock=HOLD_GUILD_LOG, key=scene.guild)
    assert isinstance(made, GuildBan)
    assert await standing(scene) == ({scene.owner}, {scene.bob})


@pytest.mark.parametrize("ban_first", [True, False])
async def test_a_first_join_from_another_server_and_a_ban_of_its_unknown_user(scene: Scene, ban_first: bool) -> None:
    """Neither finds a row of the user that it could hold."""
    eve = new_id()
    both = [ban(scene, eve), remote_join(scene, eve)] if ban_first else [remote_join(scene, eve), ban(scene, eve)]
    outcomes = await in_turn(scene, *both, lock=HOLD_GUILD_LOG, key=scene.guild)
    assert (outcomes[1] is ErrorCode.BANNED) is ban_first
    assert await standing(scene) == ({scene.owner}, {eve})


async def test_a_grant_of_the_operator_that_waits_for_a_ban_adds_no_member(scene: Scene) -> None:
    grant = GrantGuildRole(guild_id=scene.guild, user_id=scene.bob, role="admin", now_ms=NOW)
    outcomes = await in_turn(scene, ban(scene, scene.bob), grant, lock=HOLD_GUILD_LOG, key=scene.guild)
    assert outcomes[1] is MemberChange.BANNED
    assert await standing(scene) == ({scene.owner}, {scene.bob})


async def test_a_ban_that_waits_for_a_promotion_to_an_equal_is_refused(scene: Scene) -> None:
    admin = await add_user(scene.store)
    for user, role in ((admin, "admin"), (scene.bob, "member")):
        await scene.store.perform(GrantGuildRole(guild_id=scene.guild, user_id=user, role=role, now_ms=NOW))
    promote = SetMemberRole(
        author=Author(scene.owner), guild_id=scene.guild, user_id=scene.bob, role="admin", now_ms=NOW
    )
    by_admin = BanUser(author=Author(admin), guild_id=scene.guild, user_id=scene.bob, now_ms=NOW)
    outcomes = await in_turn(scene, promote, by_admin, lock=HOLD_GUILD_LOG, key=scene.guild)
    assert outcomes == [MemberChange.DONE, ErrorCode.FORBIDDEN]
    assert await standing(scene) == ({scene.owner, admin, scene.bob}, set())


async def test_two_who_ban_each_other(scene: Scene) -> None:
    """The first ban takes the right of the second one's author."""
    await scene.store.perform(GrantGuildRole(guild_id=scene.guild, user_id=scene.bob, role="admin", now_ms=NOW))
    eve = await add_user(scene.store)
    await scene.store.perform(GrantGuildRole(guild_id=scene.guild, user_id=eve, role="moderator", now_ms=NOW))
    by_bob = BanUser(author=Author(scene.bob), guild_id=scene.guild, user_id=eve, now_ms=NOW)
    by_eve = BanUser(author=Author(eve), guild_id=scene.guild, user_id=scene.bob, now_ms=NOW)
    outcomes = await in_turn(scene, by_bob, by_eve, lock=HOLD_GUILD_LOG, key=scene.guild)
    assert isinstance(outcomes[0], GuildBan)
    assert outcomes[1] is ErrorCode.NOT_FOUND


async def test_the_second_of_two_bans_is_the_first_one(scene: Scene) -> None:
    outcomes = await in_turn(
        scene, ban(scene, scene.bob, reason="one"), ban(scene, scene.bob, reason="other"), lock=HOLD_GUILD_LOG,
        key=scene.guild,
    )  # fmt: skip
    assert outcomes[0] == outcomes[1]


async def test_bans_at_once_do_not_exceed_the_cap(scene: Scene) -> None:
    outcomes = await in_turn(
        scene, *(ban(scene, new_id(), limit=1) for _ in range(2)), lock=HOLD_GUILD_LOG, key=scene.guild
    )
    assert isinstance(outcomes[0], GuildBan)
    assert outcomes[1] == LimitReached(1)


async def test_joins_bans_and_their_ends_at_once_end_without_a_banned_member(scene: Scene) -> None:
    users = [await add_user(scene.store) for _ in range(3)]
    remote = [new_id() for _ in range(3)]

    async def join_again(user_id: str) -> None:
        effect = remote_join(scene, user_id) if user_id in remote else accept(scene.code, user_id)
        for _ in range(6):
            await outcome_of(scene, effect)

    async def ban_again(user_id: str) -> None:
        for _ in range(3):
            assert isinstance(await outcome_of(scene, ban(scene, user_id)), GuildBan)
            await outcome_of(scene, UnbanUser(Author(scene.owner), scene.guild, user_id, NOW))
        await outcome_of(scene, ban(scene, user_id))

    async with anyio.create_task_group() as tasks:
        for user_id in (*users, *remote):
            tasks.start_soon(join_again, user_id)
            tasks.start_soon(ban_again, user_id)
    assert await standing(scene) == ({scene.owner}, {*users, *remote})
