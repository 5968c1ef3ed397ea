"""The bans of a mirrored guild, in both stores: as the snapshot and the log have them, also where the guild is taken over."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from openguild_proto.effects.accounts import InsertUser
from openguild_proto.effects.bans import BanUser, ListBans, UnbanUser
from openguild_proto.effects.channels import FindChannelAccess
from openguild_proto.effects.guilds import FindInvite, InsertInvite, RemoveMember
from openguild_proto.effects.handovers import TakeGuild
from openguild_proto.effects.mirrors import DropMirror, JoinFromServer, ReadSnapshot, StoreMirror
from openguild_proto.effects.roles import GrantChannelRole
from openguild_proto.errors import ErrorCode
from openguild_proto.mirror_records import GuildBan, MirroredEvent, RemoteUser, Snapshot
from openguild_proto.policy import bans as policy
from openguild_proto.records import Author
from openguild_proto.schemas.event_effects import ban_told
from openguild_proto.schemas.events import parse_content, parse_event
from openguild_proto.schemas.log_contents import MemberBannedContent
from openguild_runtime.storage.base import Storage
from tests.runtime.storage.test_mirrors import level, mirrored
from tests.runtime.storage.test_taking_over import EPOCH, handover
from tests.support.deeds import add_user
from tests.support.guild_deeds import accept, refused
from tests.support.owner_server import HERE, NOW_MS, OWNER, Owner, new_id

pytestmark = pytest.mark.anyio


@pytest.fixture
def storage(kept_storage: Storage) -> Storage:
    return kept_storage


def ban(owner: Owner, user_id: str, **more: Any) -> GuildBan:
    made = owner.do(BanUser(owner.author, owner.guild_id, user_id, **{"now_ms": NOW_MS, **more}))
    assert isinstance(made, GuildBan)
    return made


async def bans(storage: Storage, owner: Owner) -> tuple[GuildBan, ...]:
    return await storage.perform(ListBans(owner.guild_id))


async def test_a_mirror_begins_with_the_bans_of_its_guild(storage: Storage) -> None:
    owner = Owner()
    made = [ban(owner, new_id(), reason="spam", now_ms=NOW_MS + number) for number in range(2)]
    await mirrored(storage, owner)
    assert await bans(storage, owner) == tuple(made)
    await storage.perform(DropMirror(OWNER, owner.guild_id, NOW_MS))
    assert await bans(storage, owner) == ()


async def test_the_events_of_the_log_change_them(storage: Storage) -> None:
    owner = Owner()
    await mirrored(storage, owner)
    member, stranger = new_id(), new_id()
    owner.join(member, "eve")
    made = ban(owner, member, reason="spam")
    ban(owner, stranger, now_ms=NOW_MS + 1)
    await level(storage, owner, owner.guild_id)
    assert made.username == "eve"
    assert await bans(storage, owner) == owner.do(ListBans(owner.guild_id))
    assert owner.do(UnbanUser(owner.author, owner.guild_id, stranger, NOW_MS))
    await level(storage, owner, owner.guild_id)
    assert await bans(storage, owner) == (made,)


async def test_the_roles_in_channels_of_a_banned_user_end_at_the_mirror_too(storage: Storage) -> None:
    """Of one who is no member: a removal ends those of a member."""
    owner = Owner()
    await mirrored(storage, owner)
    member = new_id()
    owner.do(InsertUser(member, "eve", member, "", NOW_MS))
    owner.do(accept(owner.code, member))
    owner.do(RemoveMember(Author(member), owner.guild_id, member, NOW_MS))
    owner.do(GrantChannelRole(owner.channel_id, member, "admin", NOW_MS))
    await level(storage, owner, owner.guild_id)

    async def role() -> str | None:
        access = await storage.perform(FindChannelAccess(owner.channel_id, member))
        return access.channel_role if access is not None else None

    assert await role() == "admin"
    ban(owner, member)
    await level(storage, owner, owner.guild_id)
    assert await role() is None


async def test_a_mirror_that_begins_anew_has_the_bans_of_the_snapshot(storage: Storage) -> None:
    owner = Owner()
    await mirrored(storage, owner)
    old = ban(owner, new_id())
    await level(storage, owner, owner.guild_id)
    assert await bans(storage, owner) == (old,)
    owner.do(UnbanUser(owner.author, owner.guild_id, old.user_id, NOW_MS))
    new = ban(owner, new_id())
    snapshot: Snapshot = owner.do(ReadSnapshot(HERE, owner.guild_id))
    assert snapshot.bans == [new]
    assert await storage.perform(StoreMirror(OWNER, owner.guild_id, replace(snapshot, epoch=7), NOW_MS))
    assert await bans(storage, owner) == (new,)


async def test_a_mirror_takes_a_bounded_number_of_bans(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "MAX_GUILD_BANS", 1)
    owner = Owner()
    await mirrored(storage, owner)
    first, second = ban(owner, new_id()), ban(owner, new_id())
    await level(storage, owner, owner.guild_id)
    assert await bans(storage, owner) == (first,)
    assert owner.do(UnbanUser(owner.author, owner.guild_id, second.user_id, NOW_MS))
    await level(storage, owner, owner.guild_id)
    assert await bans(storage, owner) == (first,)


async def test_bans_hold_where_the_guild_is_taken_over(storage: Storage) -> None:
    owner = Owner()
    await mirrored(storage, owner)
    remote, local = new_id(), await add_user(storage)
    for user in (remote, local):
        ban(owner, user)
    await level(storage, owner, owner.guild_id)
    owner_here = Author(owner.user_id)
    assert await storage.perform(TakeGuild(handover(owner, kind="succession"), EPOCH, None, (), NOW_MS))
    code = f"code{new_id()[:8]}"
    await storage.perform(InsertInvite(owner_here, code, owner.guild_id, None, None, NOW_MS))
    await refused(storage, accept(code, local), ErrorCode.BANNED)
    joins = JoinFromServer("third.example", RemoteUser(remote, "eve"), code, "member", NOW_MS, 100, wants_snapshot=True)
    await refused(storage, joins, ErrorCode.BANNED)
    found = await storage.perform(FindInvite(code))
    assert found is not None
    assert found.uses == 0
    assert await storage.perform(UnbanUser(owner_here, owner.guild_id, remote, NOW_MS))
    assert await storage.perform(joins) is not None


def test_a_ban_by_nobody_is_not_believed() -> None:
    owner = Owner()
    ban(owner, new_id())
    event: MirroredEvent = owner.news(owner.guild_id, 0)[-1]
    content = parse_content(parse_event(event.wire))
    assert isinstance(content, MemberBannedContent)
    assert ban_told(event, content) is not None
    assert ban_told(replace(event, sender_id=OWNER), content) is None
