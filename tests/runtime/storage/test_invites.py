"""Invites: their uses, their life, and who may end them."""

from __future__ import annotations

import anyio
import msgspec
import pytest

from openguild_proto.effects.channels import (
    ListUnread,
)
from openguild_proto.effects.guilds import (
    DeleteInvite,
    FindInvite,
    ListInvites,
    SetMemberRole,
)
from openguild_proto.effects.roles import GrantGuildRole
from openguild_proto.errors import ErrorCode
from openguild_proto.records import Author, InviteRecord, MemberChange, PageCursor
from openguild_runtime.storage.base import Storage
from tests.support.deeds import NOW, add_channel, add_guild, add_user, append, new_id
from tests.support.guild_deeds import accept, invite, kick, new_invite, refused

pytestmark = pytest.mark.anyio


@pytest.fixture
def storage(kept_storage: Storage) -> Storage:
    return kept_storage


async def test_an_invite_counts_each_user_once(storage: Storage) -> None:
    owner, bob = await add_user(storage), await add_user(storage)
    guild = await add_guild(storage, owner)
    code = await invite(storage, guild, owner, max_uses=1)
    for _ in range(2):
        member = await storage.perform(accept(code, bob))
        assert member is not None
        assert (member.user_id, member.role) == (bob, "member")
    for counted in (0, 1):
        found = await storage.perform(FindInvite(code=code, counted=counted))
        assert found is not None
        assert found.member_count == counted, "of two"
    record = await storage.perform(FindInvite(code=code, counted=10))
    assert record is not None
    assert (record.uses, record.max_uses, record.member_count, record.guild_name) == (1, 1, 2, "guild")
    assert await storage.perform(accept(code, await add_user(storage))) is None, "used up"
    keeps = await storage.perform(accept(code, owner))
    assert keeps is not None
    assert keeps.role == "owner", "a member keeps their role"


async def test_who_joins_has_read_what_was_said_before(storage: Storage) -> None:
    """Not what is said afterwards, nor where he was already; and who comes back does not fall back."""
    owner, bob = await add_user(storage), await add_user(storage)
    guild = await add_guild(storage, owner)
    talk = await add_channel(storage, guild, owner, "talk", NOW)
    quiet = await add_channel(storage, guild, owner, "quiet", NOW + 1)
    other = await add_channel(storage, await add_guild(storage, bob), bob, "bob's own", NOW + 2)
    code = await invite(storage, guild, owner)

    async def unread(user_id: str) -> dict[str, int]:
        states = await storage.perform(ListUnread(user_id=user_id))
        return {state.channel_id: state.latest_sequence - state.last_read_sequence for state in states}

    for channel in (talk, talk, other):
        await storage.perform(append(channel))
    for user_id in (bob, owner):
        await storage.perform(accept(code, user_id))
    assert await unread(bob) == {talk: 0, quiet: 0, other: 1}
    assert await unread(owner) == {talk: 2, quiet: 0}, "a member already has read no more than before"
    for channel in (talk, quiet):
        await storage.perform(append(channel))
    await storage.perform(accept(code, bob))
    assert await unread(bob) == {talk: 1, quiet: 1, other: 1}, "accepting again reads nothing"
    await storage.perform(kick(guild, bob, owner))
    await storage.perform(append(talk))
    await storage.perform(accept(code, bob))
    assert await unread(bob) == {talk: 0, quiet: 0, other: 1}


async def test_an_invite_for_one_lets_one_of_many_in(storage: Storage) -> None:
    owner = await add_user(storage)
    code = await invite(storage, await add_guild(storage, owner), owner, max_uses=1)
    users = [await add_user(storage) for _ in range(8)]
    joined: list[str] = []

    async def join(user_id: str) -> None:
        if await storage.perform(accept(code, user_id)) is not None:
            joined.append(user_id)

    async with anyio.create_task_group() as tasks:
        for user_id in users:
            tasks.start_soon(join, user_id)
    assert len(joined) == 1


async def test_invites_are_listed_by_creation_and_code(storage: Storage) -> None:
    owner = await add_user(storage)
    guild, other = await add_guild(storage, owner), await add_guild(storage, owner)
    await invite(storage, other, owner)
    codes = ["b", "B", "a", "_", "-", "0", "A"]
    for number, code in enumerate(codes):
        effect = msgspec.structs.replace(new_invite(guild, owner, lives_ms=1), code=code, now_ms=NOW + number // 4)
        assert isinstance(await storage.perform(effect), InviteRecord)
    in_order = [*sorted(codes[:4]), *sorted(codes[4:])]
    listed = await storage.perform(ListInvites(guild_id=guild))
    assert [line.code for line in listed] == in_order
    assert {(line.guild_id, line.created_by, line.expires_at_ms) for line in listed} == {(guild, owner, NOW + 1)}
    for number, line in enumerate(listed):
        rest = await storage.perform(
            ListInvites(guild_id=guild, limit=2, after=PageCursor(line.created_at_ms, line.code))
        )
        assert [line.code for line in rest] == in_order[number + 1 :][:2]
    assert await storage.perform(ListInvites(guild_id=new_id())) == ()


async def test_expired_and_deleted_invites(storage: Storage) -> None:
    owner, bob = await add_user(storage), await add_user(storage)
    guild = await add_guild(storage, owner)
    code = await invite(storage, guild, owner, lives_ms=1_000)
    assert await storage.perform(accept(code, bob, NOW + 1_000)) is None
    await refused(storage, DeleteInvite(author=Author(bob), code=code, now_ms=NOW))
    await storage.perform(DeleteInvite(author=Author(owner), code=code, now_ms=NOW))
    await refused(storage, DeleteInvite(author=Author(owner), code=code, now_ms=NOW))
    assert await storage.perform(FindInvite(code=code)) is None
    await refused(storage, new_invite(new_id(), owner))


@pytest.mark.parametrize("end", ["removed", "demoted", "granted less"])
async def test_invites_end_with_the_right_to_create_them(storage: Storage, end: str) -> None:
    """Whoever is kicked would let themselves in again with their own invite."""
    owner, bob = await add_user(storage), await add_user(storage)
    guild, other = await add_guild(storage, owner), await add_guild(storage, bob)
    await storage.perform(GrantGuildRole(guild_id=guild, user_id=bob, role="admin", now_ms=NOW))
    bobs = await invite(storage, guild, bob)
    owners, elsewhere = await invite(storage, guild, owner), await invite(storage, other, bob)

    def role(new: str) -> SetMemberRole:
        return SetMemberRole(author=Author(owner), guild_id=guild, user_id=bob, role=new, now_ms=NOW)

    assert await storage.perform(role("maintainer")) is MemberChange.DONE
    assert await storage.perform(FindInvite(code=bobs)) is not None, "they may still create invites"
    match end:
        case "removed":
            assert await storage.perform(kick(guild, bob, owner)) is MemberChange.DONE
        case "demoted":
            assert await storage.perform(role("member")) is MemberChange.DONE
        case _:
            await storage.perform(GrantGuildRole(guild_id=guild, user_id=bob, role="viewer", now_ms=NOW))
    assert await storage.perform(FindInvite(code=bobs)) is None
    assert await storage.perform(accept(bobs, bob)) is None
    for code in (owners, elsewhere):
        assert await storage.perform(FindInvite(code=code)) is not None
    late = ErrorCode.NOT_FOUND if end == "removed" else ErrorCode.FORBIDDEN
    await refused(storage, new_invite(guild, bob), late)
