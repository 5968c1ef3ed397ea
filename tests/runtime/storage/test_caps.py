"""How much there may be of what an account makes: held on both stores, against many at once too (`guilds.*`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import pytest

from openguild_proto.effects import StorageEffect
from openguild_proto.effects.channels import DeleteChannel, InsertChannel
from openguild_proto.effects.guilds import (
    AcceptInvite,
    FindInvite,
    InsertGuild,
    InsertInvite,
    ListGuilds,
    SetMemberRole,
)
from openguild_proto.effects.roles import GrantGuildRole
from openguild_proto.records import Author, ChannelRecord, InviteRecord, LimitReached, MemberChange
from openguild_runtime.storage.base import Storage
from tests.support.deeds import NOW, add_guild, add_user, new_id

pytestmark = pytest.mark.anyio


@pytest.fixture
def storage(kept_storage: Storage) -> Storage:
    return kept_storage


def new_guild(owner: str, limit: int) -> InsertGuild:
    return InsertGuild(author=Author(owner), guild_id=new_id(), name="g", now_ms=NOW, limit=limit)


def new_channel(guild: str, owner: str, limit: int) -> InsertChannel:
    return InsertChannel(author=Author(owner), channel_id=new_id(), guild_id=guild, name="c", now_ms=NOW, limit=limit)


def new_invite(guild: str, owner: str, limit: int, now_ms: int = NOW, lives_ms: int | None = None) -> InsertInvite:
    return InsertInvite(
        author=Author(owner), code=new_id()[:12], guild_id=guild, max_uses=None,
        expires_at_ms=now_ms + lives_ms if lives_ms is not None else None, now_ms=now_ms, limit=limit,
    )  # fmt: skip


@pytest.mark.parametrize("what", ["guilds", "channels", "invites"])
async def test_many_at_once_do_not_pass_the_limit(storage: Storage, what: str) -> None:
    owner = await add_user(storage)
    guild = await add_guild(storage, owner)
    make: dict[str, Callable[[], StorageEffect[Any]]] = {
        "guilds": lambda: new_guild(owner, 4),  # one is there
        "channels": lambda: new_channel(guild, owner, 3),
        "invites": lambda: new_invite(guild, owner, 3),
    }
    outcomes: list[Any] = []

    async def perform() -> None:
        outcomes.append(await storage.perform(make[what]()))

    async with anyio.create_task_group() as tasks:
        for _ in range(8):
            tasks.start_soon(perform)
    assert sum(isinstance(outcome, LimitReached) for outcome in outcomes) == 5
    assert None not in outcomes


async def test_a_deleted_channel_makes_room(storage: Storage) -> None:
    owner = await add_user(storage)
    guild = await add_guild(storage, owner)
    first = await storage.perform(new_channel(guild, owner, 1))
    assert isinstance(first, ChannelRecord)
    assert await storage.perform(new_channel(guild, owner, 1)) == LimitReached(1)
    await storage.perform(DeleteChannel(author=Author(owner), channel_id=first.channel_id, now_ms=NOW))
    assert isinstance(await storage.perform(new_channel(guild, owner, 1)), ChannelRecord)


async def test_ownership_that_is_handed_on_counts(storage: Storage) -> None:
    """Else two accounts would own any number by making guilds and handing them on."""
    alice, bob = await add_user(storage), await add_user(storage)
    guild = await add_guild(storage, alice)
    await add_guild(storage, bob)
    await storage.perform(GrantGuildRole(guild_id=guild, user_id=bob, role="admin", now_ms=NOW))

    def promote(limit: int) -> SetMemberRole:
        return SetMemberRole(author=Author(alice), guild_id=guild, user_id=bob, role="owner", limit=limit, now_ms=NOW)

    assert await storage.perform(promote(1)) is MemberChange.LIMIT_REACHED
    assert await storage.perform(promote(2)) is MemberChange.DONE


async def test_joining_at_once_does_not_pass_the_limit(storage: Storage) -> None:
    owner, bob = await add_user(storage), await add_user(storage)
    await add_guild(storage, bob)
    codes = []
    for _ in range(6):
        invite = await storage.perform(new_invite(await add_guild(storage, owner), owner, 1))
        assert isinstance(invite, InviteRecord)
        codes.append(invite.code)
    outcomes: list[object] = []

    async def join(code: str) -> None:
        outcomes.append(
            await storage.perform(AcceptInvite(author=Author(bob), code=code, role="member", now_ms=NOW, limit=3))
        )

    async with anyio.create_task_group() as tasks:
        for code in codes:
            tasks.start_soon(join, code)
    assert outcomes.count(LimitReached(3)) == 4
    assert len(await storage.perform(ListGuilds(user_id=bob))) == 3


async def test_expired_invites_make_room_and_are_not_kept_without_end(storage: Storage) -> None:
    owner = await add_user(storage)
    guild = await add_guild(storage, owner)
    made = [new_invite(guild, owner, 2, NOW + number, lives_ms=1) for number in range(6)]
    for effect in made:
        assert isinstance(await storage.perform(effect), InviteRecord)
    found = [await storage.perform(FindInvite(code=effect.code)) is not None for effect in made]
    assert found == [False, False, False, True, True, True], "the newest two that have expired, and the last"
