"""Users of a store who join guilds that it mirrors: when they become members."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from openguild_proto.effects.guilds import FindGuildAccess, ListMembers, RemoveMember, RenameGuild, SetMemberRole
from openguild_proto.effects.logs import ReadLogs
from openguild_proto.effects.mirrors import FindMirrorHead, ReadSnapshot, StoreMirror
from openguild_proto.records import Author, LogPart
from openguild_proto.schemas.events import parse_content, parse_event
from openguild_proto.schemas.log_contents import GuildJoinedContent
from openguild_runtime.storage.base import Storage
from tests.runtime.storage.test_mirrors import level, mirrored, register
from tests.support.owner_server import HERE, NOW_MS, OWNER, Owner

pytestmark = pytest.mark.anyio


@pytest.fixture
def storage(kept_storage: Storage) -> Storage:
    return kept_storage


async def test_whoever_left_and_joined_again_stays_a_member(storage: Storage) -> None:
    """The mirror has not got yet that they left: it begins anew."""
    owner = Owner()
    user_id = await mirrored(storage, owner)
    owner.do(RemoveMember(Author(user_id), owner.guild_id, user_id, NOW_MS))
    joined = owner.join(user_id)
    asked = StoreMirror(OWNER, owner.guild_id, None, NOW_MS, joined=joined.member, stands=joined.place)
    assert not await storage.perform(asked)
    assert await storage.perform(replace(asked, snapshot=joined.snapshot))
    assert await storage.perform(FindMirrorHead(OWNER, owner.guild_id)) == joined.place
    assert not (await level(storage, owner, owner.guild_id)).ended
    access = await storage.perform(FindGuildAccess(owner.guild_id, user_id))
    assert access is not None
    assert access.role == "member"


async def test_a_mirror_that_begins_anew_has_the_roles_of_its_owner(storage: Storage) -> None:
    """They were a moderator, left, and joined again; and another user is no moderator any more."""
    owner = Owner()
    bob, carol = await mirrored(storage, owner), await mirrored(storage, owner)
    for user_id in (bob, carol):
        owner.do(SetMemberRole(owner.author, owner.guild_id, user_id, "moderator", NOW_MS))
    await level(storage, owner, owner.guild_id)
    owner.do(RemoveMember(Author(bob), owner.guild_id, bob, NOW_MS))
    owner.do(SetMemberRole(owner.author, owner.guild_id, carol, "viewer", NOW_MS))
    joined = owner.join(bob)
    asked = StoreMirror(OWNER, owner.guild_id, joined.snapshot, NOW_MS, joined=joined.member, stands=joined.place)
    assert await storage.perform(asked)
    roles = {line.user_id: line.role for line in await storage.perform(ListMembers(owner.guild_id))}
    assert roles == {owner.user_id: "owner", bob: "member", carol: "viewer"}


async def test_an_older_snapshot_does_not_name_the_guild(storage: Storage) -> None:
    """Its answer was slower than the deliveries, with which the mirror has gone on."""
    owner = Owner()
    await mirrored(storage, owner)
    carol = await register(storage, "carol")
    joined = owner.join(carol)
    owner.do(RenameGuild(owner.author, owner.guild_id, "renamed", NOW_MS))
    await level(storage, owner, owner.guild_id)
    asked = StoreMirror(OWNER, owner.guild_id, joined.snapshot, NOW_MS, joined=joined.member, stands=joined.place)
    assert await storage.perform(asked)
    (news,) = await storage.perform(ReadLogs(parts=(LogPart(carol, 0, 10),)))
    content = parse_content(parse_event(news.wire))
    assert isinstance(content, GuildJoinedContent)
    assert content.name == "renamed"


async def test_a_snapshot_may_be_later_than_the_join(storage: Storage) -> None:
    owner = Owner()
    user_id = await register(storage, "carol")
    joined = owner.join(user_id)
    for name in ("first", "second"):
        owner.do(RenameGuild(owner.author, owner.guild_id, name, NOW_MS))
    later = owner.do(ReadSnapshot(HERE, owner.guild_id))
    asked = StoreMirror(OWNER, owner.guild_id, later, NOW_MS, joined=joined.member, stands=joined.place)
    assert await storage.perform(asked)
    access = await storage.perform(FindGuildAccess(owner.guild_id, user_id))
    assert access is not None
    assert access.role == "member"


async def test_a_join_from_before_the_mirror_is_not_believed(storage: Storage) -> None:
    """They may have left before it began."""
    owner = Owner()
    user_id = await register(storage, "carol")
    joined = owner.join(user_id)
    await mirrored(storage, owner)
    asked = StoreMirror(OWNER, owner.guild_id, None, NOW_MS, joined=joined.member, stands=joined.place)
    assert not await storage.perform(asked)
    assert not await storage.perform(replace(asked, snapshot=joined.snapshot))


async def test_whoever_has_gone_since_is_not_admitted(storage: Storage) -> None:
    owner = Owner()
    await mirrored(storage, owner)
    user_id = await register(storage, "carol")
    joined = owner.join(user_id)
    owner.do(RemoveMember(Author(user_id), owner.guild_id, user_id, NOW_MS))
    await level(storage, owner, owner.guild_id)
    asked = StoreMirror(OWNER, owner.guild_id, None, NOW_MS, joined=joined.member, stands=joined.place)
    assert await storage.perform(asked)
    access = await storage.perform(FindGuildAccess(owner.guild_id, user_id))
    assert access is not None
    assert access.role is None
