"""Bans in both stores: they end a membership, keep users out whatever the way, and are told in the guild's log."""

from __future__ import annotations

from typing import Any

import pytest

from openguild_proto.effects.bans import BanUser, FindBan, ListBans, UnbanUser
from openguild_proto.effects.channels import FindChannelAccess
from openguild_proto.effects.guilds import DeleteGuild, FindGuildAccess, FindInvite, FindMember, ListInvites
from openguild_proto.effects.logs import FindLogHead, ReadLogs
from openguild_proto.effects.mirrors import JoinFromServer
from openguild_proto.effects.roles import GrantChannelRole, GrantGuildRole
from openguild_proto.errors import ErrorCode
from openguild_proto.mirror_records import GuildBan, RemoteUser
from openguild_proto.records import Author, LimitReached, LogPart, MemberChange, MemberRecord, PageCursor
from openguild_proto.schemas.events import parse_event
from openguild_runtime.storage.base import Storage
from tests.support.deeds import NOW, add_channel, add_guild, add_user, control_head, new_id
from tests.support.guild_deeds import accept, invite, kick, refused
from tests.support.peers import PEER, join

pytestmark = pytest.mark.anyio


@pytest.fixture
def storage(kept_storage: Storage) -> Storage:
    return kept_storage


def ban(guild: str, user_id: str, by: str, **more: Any) -> BanUser:
    return BanUser(author=Author(by), guild_id=guild, user_id=user_id, **{"now_ms": NOW, **more})


def unban(guild: str, user_id: str, by: str, reason: str | None = None) -> UnbanUser:
    return UnbanUser(author=Author(by), guild_id=guild, user_id=user_id, now_ms=NOW, reason=reason)


def remote_join(code: str, user_id: str) -> JoinFromServer:
    return JoinFromServer(PEER, RemoteUser(user_id, "eve"), code, "member", NOW, 1_000, wants_snapshot=True)


async def told(storage: Storage, log_id: str, after: int) -> list[tuple[str, str, dict[str, Any]]]:
    """The type, the sender and the content of the events behind `after`."""
    events = [
        parse_event(event.wire) for event in await storage.perform(ReadLogs(parts=(LogPart(log_id, after, 100),)))
    ]
    return [(e.event_type, e.sender, {k: v for k, v in e.content.items() if k != "place"}) for e in events]


async def head(storage: Storage, log_id: str) -> int:
    place = await storage.perform(FindLogHead(log_id))
    assert place is not None
    return place.sequence


async def test_a_member_is_removed_and_kept_out(storage: Storage) -> None:
    owner, bob = await add_user(storage), await add_user(storage, f"bob{new_id()}")
    guild = await add_guild(storage, owner)
    channel = await add_channel(storage, guild, owner)
    code = await invite(storage, guild, owner, max_uses=5)
    member = await storage.perform(accept(code, bob))
    assert isinstance(member, MemberRecord)
    await storage.perform(GrantGuildRole(guild_id=guild, user_id=bob, role="maintainer", now_ms=NOW))
    await storage.perform(GrantChannelRole(channel_id=channel, user_id=bob, role="admin", now_ms=NOW))
    own_code = await invite(storage, guild, bob)
    before, before_own, control = await head(storage, guild), await head(storage, bob), await control_head(storage)
    made = await storage.perform(ban(guild, bob, owner, reason="spam"))
    assert made == GuildBan(bob, owner, NOW, member.username, "spam")
    assert await storage.perform(FindMember(guild, bob)) is None
    access = await storage.perform(FindChannelAccess(channel_id=channel, user_id=bob))
    assert access is not None
    assert (access.guild_role, access.channel_role) == (None, None)
    assert await storage.perform(FindInvite(code=own_code)) is None
    named = [(kind, sender) for kind, sender, _ in await told(storage, guild, before)]
    assert named == [("member.removed", owner), ("member.banned", owner), ("invite.deleted", owner)]
    removed, banned, _ = [content for _, _, content in await told(storage, guild, before)]
    assert removed == {"user_id": bob, "reason": "spam"}
    assert banned == {"user_id": bob, "username": member.username, "reason": "spam"}
    assert await told(storage, bob, before_own) == [
        ("guild.left", owner, {"guild_id": guild, "removed": True, "reason": "spam"})
    ]
    assert await control_head(storage) == control + 1
    await refused(storage, accept(code, bob), ErrorCode.BANNED)
    found = await storage.perform(FindInvite(code=code))
    assert found is not None
    assert found.uses == 1


async def test_a_ban_that_is_repeated_stays_as_it_is(storage: Storage) -> None:
    owner, bob, eve = [await add_user(storage) for _ in range(3)]
    guild = await add_guild(storage, owner)
    await storage.perform(GrantGuildRole(guild_id=guild, user_id=eve, role="moderator", now_ms=NOW))
    first = await storage.perform(ban(guild, bob, owner, reason="spam"))
    before, control = await head(storage, guild), await control_head(storage)
    assert await storage.perform(ban(guild, bob, eve, now_ms=NOW + 5, reason="another")) == first
    assert await told(storage, guild, before) == []
    assert await control_head(storage) == control


async def test_users_who_were_never_members_are_kept_out(storage: Storage) -> None:
    owner, bob = await add_user(storage), await add_user(storage)
    guild = await add_guild(storage, owner)
    channel = await add_channel(storage, guild, owner)
    await storage.perform(GrantChannelRole(channel_id=channel, user_id=bob, role="viewer", now_ms=NOW))
    before, before_own = await head(storage, guild), await head(storage, bob)
    await storage.perform(ban(guild, bob, owner))
    assert [kind for kind, _, _ in await told(storage, guild, before)] == ["member.banned"]
    assert await told(storage, bob, before_own) == []
    access = await storage.perform(FindChannelAccess(channel_id=channel, user_id=bob))
    assert access is not None
    assert access.channel_role is None, "roles in channels end"
    await refused(storage, accept(await invite(storage, guild, owner), bob), ErrorCode.BANNED)


async def test_users_of_other_servers_are_kept_out_known_or_not(storage: Storage) -> None:
    owner = await add_user(storage)
    guild = await add_guild(storage, owner)
    code = await invite(storage, guild, owner)
    unknown = new_id()
    made = await storage.perform(ban(guild, unknown, owner))
    assert made == GuildBan(unknown, owner, NOW, None, None)
    await refused(storage, remote_join(code, unknown), ErrorCode.BANNED)
    assert await storage.perform(FindGuildAccess(guild, unknown)) is not None
    assert await storage.perform(unban(guild, unknown, owner))
    assert await storage.perform(remote_join(code, unknown)) is not None
    member = await join(storage, guild, owner)
    made = await storage.perform(ban(guild, member, owner))
    assert isinstance(made, GuildBan)
    assert made.username == f"u{member[:8]}"
    await refused(storage, remote_join(code, member), ErrorCode.BANNED)


async def test_a_command_of_the_operator_makes_no_banned_user_a_member(storage: Storage) -> None:
    owner, bob = await add_user(storage), await add_user(storage)
    guild = await add_guild(storage, owner)
    await storage.perform(ban(guild, bob, owner))
    grant = GrantGuildRole(guild_id=guild, user_id=bob, role="admin", now_ms=NOW)
    assert await storage.perform(grant) is MemberChange.BANNED
    assert await storage.perform(FindMember(guild, bob)) is None
    await storage.perform(unban(guild, bob, owner))
    assert await storage.perform(grant) is MemberChange.DONE


async def test_a_ban_that_ended_lets_join_again(storage: Storage) -> None:
    owner, bob = await add_user(storage), await add_user(storage)
    guild = await add_guild(storage, owner)
    code = await invite(storage, guild, owner)
    assert not await storage.perform(unban(guild, bob, owner))
    made = await storage.perform(ban(guild, bob, owner))
    assert isinstance(made, GuildBan)
    before = await head(storage, guild)
    assert await storage.perform(unban(guild, bob, owner, "he has apologised"))
    told_of = {"user_id": bob, "username": made.username, "reason": "he has apologised"}
    assert await told(storage, guild, before) == [("member.unbanned", owner, told_of)]
    assert await storage.perform(FindBan(guild, bob)) is None
    assert not await storage.perform(unban(guild, bob, owner))
    assert isinstance(await storage.perform(accept(code, bob)), MemberRecord)


async def test_bans_are_listed_by_time_in_pages(storage: Storage) -> None:
    owner = await add_user(storage)
    guild, other = await add_guild(storage, owner), await add_guild(storage, owner)
    users = [await add_user(storage) for _ in range(4)]
    for at, user in enumerate(users):
        await storage.perform(ban(guild, user, owner, now_ms=NOW + at // 2))
    await storage.perform(ban(other, users[0], owner))
    ordered = [*sorted(users[:2]), *sorted(users[2:])]
    found = await storage.perform(ListBans(guild))
    assert [line.user_id for line in found] == ordered
    page = await storage.perform(ListBans(guild, limit=2, after=PageCursor(NOW, ordered[0])))
    assert [line.user_id for line in page] == ordered[1:3]
    assert await storage.perform(FindBan(guild, ordered[2])) == found[2]


async def test_a_guild_has_so_many_bans_and_no_more(storage: Storage) -> None:
    owner, *users = [await add_user(storage) for _ in range(4)]
    guild = await add_guild(storage, owner)
    code = await invite(storage, guild, owner)
    assert isinstance(await storage.perform(accept(code, users[2])), MemberRecord)
    for user in users[:2]:
        assert isinstance(await storage.perform(ban(guild, user, owner, limit=2)), GuildBan)
    before = await head(storage, guild)
    assert await storage.perform(ban(guild, users[2], owner, limit=2)) == LimitReached(2)
    assert await head(storage, guild) == before
    assert await storage.perform(FindMember(guild, users[2])) is not None, "who is not banned is not removed"
    assert isinstance(await storage.perform(ban(guild, users[0], owner, limit=2)), GuildBan), "a repeat"


async def test_ranks_decide_in_the_transaction(storage: Storage) -> None:
    owner, admin, other, mod = [await add_user(storage) for _ in range(4)]
    guild = await add_guild(storage, owner)
    for user, role in ((admin, "admin"), (other, "admin"), (mod, "moderator")):
        await storage.perform(GrantGuildRole(guild_id=guild, user_id=user, role=role, now_ms=NOW))
    for by, user in ((admin, other), (admin, owner), (mod, admin), (owner, owner), (admin, admin)):
        await refused(storage, ban(guild, user, by), ErrorCode.FORBIDDEN)
    assert isinstance(await storage.perform(ban(guild, mod, admin)), GuildBan)
    await refused(storage, unban(guild, mod, mod), ErrorCode.NOT_FOUND)


async def test_a_deleted_guild_takes_its_bans_with_it(storage: Storage) -> None:
    owner, bob = await add_user(storage), await add_user(storage)
    guild = await add_guild(storage, owner)
    await storage.perform(ban(guild, bob, owner))
    await storage.perform(DeleteGuild(author=Author(owner), guild_id=guild))
    assert await storage.perform(ListBans(guild)) == ()
    assert await storage.perform(ListInvites(guild)) == ()


async def test_a_member_who_was_only_removed_may_come_back(storage: Storage) -> None:
    owner, bob = await add_user(storage), await add_user(storage)
    guild = await add_guild(storage, owner)
    code = await invite(storage, guild, owner)
    assert isinstance(await storage.perform(accept(code, bob)), MemberRecord)
    assert await storage.perform(kick(guild, bob, owner)) is MemberChange.DONE
    assert isinstance(await storage.perform(accept(code, bob)), MemberRecord)
