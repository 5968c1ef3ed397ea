"""Guilds, members, invites, channels and the control log on both stores (PROTOCOL 5, 10.4)."""

from __future__ import annotations

from contextlib import suppress

import anyio
import pytest

from openguild_proto.effects.channels import (
    DeleteChannel,
    FindChannelAccess,
    InsertChannel,
    ListChannels,
    ListUnread,
    ReadEvents,
    UpdateChannel,
)
from openguild_proto.effects.guilds import (
    DeleteGuild,
    FindGuildAccess,
    FindInvite,
    FindMember,
    ListGuilds,
    ListMembers,
    RenameGuild,
    SetMemberRole,
)
from openguild_proto.effects.logs import FindLogHead
from openguild_proto.effects.replica import FindAudience
from openguild_proto.effects.roles import GrantChannelRole, GrantGuildRole, GrantServerRole
from openguild_proto.errors import ErrorCode, Refusal
from openguild_proto.records import Author, ControlKind, MemberChange, PageCursor
from openguild_proto.schemas.payloads import channels_deleted
from openguild_runtime.storage.base import Storage
from tests.support.deeds import NOW, add_channel, add_guild, add_user, control_head, controls, new_id, visible
from tests.support.guild_deeds import accept, invite, kick, new_channel, refused
from tests.support.storage_handler import HeardFromStorage

pytestmark = pytest.mark.anyio


@pytest.fixture
def storage(kept_storage: Storage) -> Storage:
    return kept_storage


async def test_the_creator_is_the_owner(storage: Storage) -> None:
    """PROTOCOL 5.4.1."""
    user, other = await add_user(storage), await add_user(storage)
    guild = await add_guild(storage, user, "mine")
    access = await storage.perform(FindGuildAccess(guild_id=guild, user_id=user))
    stranger = await storage.perform(FindGuildAccess(guild_id=guild, user_id=other))
    assert access is not None
    assert stranger is not None
    assert (access.guild.name, access.role, stranger.role) == ("mine", "owner", None)
    assert await storage.perform(FindGuildAccess(guild_id=new_id(), user_id=user)) is None


async def test_lists_are_paged_oldest_first(storage: Storage) -> None:
    """PROTOCOL 3.5."""
    user = await add_user(storage)
    guilds = [await add_guild(storage, user, f"g{number}", NOW + number // 2) for number in range(5)]
    listed = await storage.perform(ListGuilds(user_id=user))
    expected = [guild.guild_id for guild in listed]
    assert sorted(expected) == sorted(guilds)
    assert [guild.created_at_ms for guild in listed] == sorted(guild.created_at_ms for guild in listed)
    paged: list[str] = []
    after: PageCursor | None = None
    while page := await storage.perform(ListGuilds(user_id=user, limit=2, after=after)):
        paged += [guild.guild_id for guild in page]
        after = PageCursor(page[-1].created_at_ms, page[-1].guild_id)
    assert paged == expected
    assert await storage.perform(ListGuilds(user_id=await add_user(storage))) == ()
    everything = await storage.perform(ListGuilds(user_id=None))
    assert set(expected) <= {guild.guild_id for guild in everything}


async def test_channels_and_members_are_paged(storage: Storage) -> None:
    owner = await add_user(storage)
    guild = await add_guild(storage, owner)
    channels = [await add_channel(storage, guild, owner, f"c{number}", NOW + number) for number in range(3)]
    page = await storage.perform(ListChannels(guild_id=guild, limit=2))
    rest = await storage.perform(ListChannels(guild_id=guild, limit=2, after=PageCursor(NOW + 1, page[-1].channel_id)))
    assert [channel.channel_id for channel in (*page, *rest)] == channels
    code = await invite(storage, guild, owner)
    users = [owner]
    for number in range(3):
        users.append(await add_user(storage))
        await storage.perform(accept(code, users[-1], NOW + 1 + number))
    first = await storage.perform(ListMembers(guild_id=guild, limit=3))
    second = await storage.perform(
        ListMembers(guild_id=guild, limit=3, after=PageCursor(first[-1].joined_at_ms, first[-1].user_id))
    )
    assert [member.user_id for member in (*first, *second)] == users


async def test_a_page_begins_where_a_row_was_that_is_gone(storage: Storage) -> None:
    """A place outlives its row: whoever pages through a list misses nothing that is still in it."""
    owner = await add_user(storage)
    guilds = [await add_guild(storage, owner, now_ms=NOW + number) for number in range(3)]
    channels = [await add_channel(storage, guilds[2], owner, now_ms=NOW + number) for number in range(3)]
    code = await invite(storage, guilds[2], owner)
    users = [await add_user(storage) for _ in range(2)]
    for number, user_id in enumerate(users):
        await storage.perform(accept(code, user_id, NOW + 3 + number))
    await storage.perform(DeleteChannel(author=Author(owner), channel_id=channels[1], now_ms=NOW))
    await storage.perform(kick(guilds[2], users[0], owner))
    await storage.perform(DeleteGuild(author=Author(owner), guild_id=guilds[1]))
    after_guild = await storage.perform(ListGuilds(user_id=owner, after=PageCursor(NOW + 1, guilds[1])))
    assert [guild.guild_id for guild in after_guild] == guilds[2:]
    gone = PageCursor(NOW + 1, channels[1])
    listed = await storage.perform(ListChannels(guild_id=guilds[2], after=gone))
    unread = await storage.perform(ListUnread(user_id=owner, after=gone))
    assert [line.channel_id for line in (*listed, *unread)] == [channels[2]] * 2
    members = await storage.perform(ListMembers(guild_id=guilds[2], after=PageCursor(NOW + 3, users[0])))
    assert [member.user_id for member in members] == users[1:]


async def test_the_last_owner_stays(storage: Storage) -> None:
    owner, bob = await add_user(storage), await add_user(storage)
    guild = await add_guild(storage, owner)

    def role(user_id: str, new: str) -> SetMemberRole:
        return SetMemberRole(author=Author(owner), guild_id=guild, user_id=user_id, role=new, now_ms=NOW)

    assert await storage.perform(role(owner, "member")) is MemberChange.LAST_OWNER
    leave = kick(guild, owner, owner)
    assert await storage.perform(leave) is MemberChange.LAST_OWNER
    assert await storage.perform(role(bob, "admin")) is MemberChange.NOT_MEMBER
    assert (
        await storage.perform(GrantGuildRole(guild_id=guild, user_id=bob, role="viewer", now_ms=NOW))
        is MemberChange.DONE
    )
    assert await storage.perform(role(bob, "owner")) is MemberChange.DONE
    assert await storage.perform(leave) is MemberChange.DONE
    assert await storage.perform(FindMember(guild_id=guild, user_id=owner)) is None


async def test_the_command_line_keeps_an_owner_too(storage: Storage) -> None:
    """`assign-guild-role` gives any role, but not to the last owner (PROTOCOL 5.4.1)."""
    owner, bob = await add_user(storage), await add_user(storage)
    guild = await add_guild(storage, owner)

    async def grant(user_id: str, role: str, guild_id: str = guild) -> MemberChange | None:
        return await storage.perform(GrantGuildRole(guild_id=guild_id, user_id=user_id, role=role, now_ms=NOW))

    code, head = await invite(storage, guild, owner), await control_head(storage)
    assert await grant(owner, "guest") is MemberChange.LAST_OWNER
    member = await storage.perform(FindMember(guild_id=guild, user_id=owner))
    assert member is not None
    assert member.role == "owner"
    assert await storage.perform(FindInvite(code=code)) is not None, "nothing was changed"
    assert await control_head(storage) == head
    assert await grant(owner, "owner") is MemberChange.DONE
    assert await grant(bob, "owner") is MemberChange.DONE
    assert await grant(owner, "guest") is MemberChange.DONE
    assert await grant(bob, "guest") is MemberChange.LAST_OWNER
    assert await grant(bob, "guest", new_id()) is None


async def test_two_owners_cannot_both_leave(storage: Storage) -> None:
    alice, bob = await add_user(storage), await add_user(storage)
    guild = await add_guild(storage, alice)
    await storage.perform(GrantGuildRole(guild_id=guild, user_id=bob, role="owner", now_ms=NOW))
    outcomes: list[MemberChange] = []

    async def leave(user_id: str) -> None:
        outcomes.append(await storage.perform(kick(guild, user_id, user_id)))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(leave, alice)
        tasks.start_soon(leave, bob)
    assert set(outcomes) == {MemberChange.DONE, MemberChange.LAST_OWNER}


async def test_a_removed_member_loses_channel_roles_too(storage: Storage) -> None:
    owner, bob = await add_user(storage), await add_user(storage)
    guild = await add_guild(storage, owner)
    channel = await add_channel(storage, guild, owner)
    await storage.perform(GrantGuildRole(guild_id=guild, user_id=bob, role="member", now_ms=NOW))
    assert await storage.perform(GrantChannelRole(channel_id=channel, user_id=bob, role="viewer", now_ms=NOW)) is True
    before = await storage.perform(FindChannelAccess(channel_id=channel, user_id=bob))
    await storage.perform(kick(guild, bob, owner))
    after = await storage.perform(FindChannelAccess(channel_id=channel, user_id=bob))
    assert before is not None
    assert after is not None
    assert (before.guild_role, before.channel_role) == ("member", "viewer")
    assert (after.guild_role, after.channel_role) == (None, None)


async def test_a_channel_is_not_created_by_who_is_being_removed(storage: Storage) -> None:
    """Decided before, stored after: the creator's role in it would outlive the membership."""
    owner, bob = await add_user(storage), await add_user(storage)
    guild = await add_guild(storage, owner)

    async def create(effect: InsertChannel) -> None:
        with suppress(Refusal):
            await storage.perform(effect)

    for _ in range(4):
        await storage.perform(GrantGuildRole(guild_id=guild, user_id=bob, role="maintainer", now_ms=NOW))
        effects = [new_channel(guild, bob) for _ in range(6)]
        async with anyio.create_task_group() as tasks:
            for effect in effects[:3]:
                tasks.start_soon(create, effect)
            tasks.start_soon(storage.perform, kick(guild, bob, owner))
            for effect in effects[3:]:
                tasks.start_soon(create, effect)
        late = new_channel(guild, bob)
        await refused(storage, late)
        for effect in (*effects, late):
            access = await storage.perform(FindChannelAccess(channel_id=effect.channel_id, user_id=bob))
            assert access is None or access.channel_role is None


async def test_a_channel_is_not_created_by_who_was_demoted(storage: Storage) -> None:
    owner, bob = await add_user(storage), await add_user(storage)
    guild = await add_guild(storage, owner)
    await storage.perform(GrantGuildRole(guild_id=guild, user_id=bob, role="maintainer", now_ms=NOW))
    demote = SetMemberRole(author=Author(owner), guild_id=guild, user_id=bob, role="viewer", now_ms=NOW)
    assert await storage.perform(demote) is MemberChange.DONE
    await refused(storage, new_channel(guild, bob), ErrorCode.FORBIDDEN)


async def test_who_creates_a_channel_by_a_server_role_gets_no_role_in_it(storage: Storage) -> None:
    owner, admin = await add_user(storage), await add_user(storage)
    guild = await add_guild(storage, owner)
    await storage.perform(GrantServerRole(user_id=admin, role="moderator", now_ms=NOW))
    for user, role in ((admin, None), (owner, "moderator")):
        effect = new_channel(guild, user)
        assert await storage.perform(effect) is not None
        access = await storage.perform(FindChannelAccess(channel_id=effect.channel_id, user_id=user))
        assert access is not None
        assert access.channel_role == role
    assert (await visible(storage, admin)).channel_ids == ()


async def test_a_name_that_a_guild_has_already_is_no_event(storage: Storage) -> None:
    owner = await add_user(storage)
    guild = await add_guild(storage, owner, "old")
    for name, head in (("old", 2), ("new", 3), ("new", 3), ("old", 4)):
        rename = RenameGuild(author=Author(owner), guild_id=guild, name=name, now_ms=NOW)
        assert (await storage.perform(rename)).name == name
        place = await storage.perform(FindLogHead(log_id=guild))
        assert place is not None
        assert place.sequence == head
    await refused(storage, RenameGuild(author=Author(await add_user(storage)), guild_id=guild, name="old", now_ms=NOW))


async def test_renaming_and_deleting(storage: Storage) -> None:
    owner = await add_user(storage)
    guild = await add_guild(storage, owner)
    channel = await add_channel(storage, guild, owner)
    author = Author(owner)
    renamed = await storage.perform(RenameGuild(author=author, guild_id=guild, name="new", now_ms=NOW))
    assert renamed.name == "new"
    channel_renamed = await storage.perform(
        UpdateChannel(author=author, channel_id=channel, name="new too", now_ms=NOW)
    )
    assert channel_renamed.name == "new too"
    await refused(storage, RenameGuild(author=author, guild_id=new_id(), name="x", now_ms=NOW))
    await refused(storage, UpdateChannel(author=author, channel_id=new_id(), name="x", now_ms=NOW))
    await storage.perform(DeleteGuild(author=author, guild_id=guild))
    await refused(storage, DeleteGuild(author=author, guild_id=guild))
    assert await storage.perform(FindChannelAccess(channel_id=channel, user_id=owner)) is None
    await refused(storage, new_channel(guild, owner))


async def test_the_control_log_is_dense_and_tells_each_change(storage: Storage) -> None:
    storage.attach(heard := HeardFromStorage())
    owner, bob = await add_user(storage), await add_user(storage)
    start = await control_head(storage)
    guild = await add_guild(storage, owner)
    channel = await add_channel(storage, guild, owner, "news")
    await storage.perform(accept(await invite(storage, guild, owner), bob))
    await storage.perform(kick(guild, bob, owner))
    await storage.perform(DeleteGuild(author=Author(owner), guild_id=guild))
    records = await controls(storage, start, 100)
    assert [record.kind for record in records] == [
        ControlKind.MEMBER_JOINED,
        ControlKind.CHANNEL_CREATED,
        ControlKind.MEMBER_JOINED,
        ControlKind.MEMBER_REMOVED,
        ControlKind.GUILD_DELETED,
    ]
    assert [record.sequence for record in records] == list(range(start + 1, start + 6))
    assert heard.records == records
    assert await control_head(storage) == start + 5
    assert await controls(storage, start + 1, 1) == records[1:2]
    body = records[1].body
    assert body is not None
    assert f'"channel_id":"{channel}"' in body
    assert '"name":"news"' in body
    assert channels_deleted(records[4]) == [channel]


async def test_visible_covers_guilds_and_explicit_channels(storage: Storage) -> None:
    owner, bob = await add_user(storage), await add_user(storage)
    mine, other = await add_guild(storage, owner), await add_guild(storage, bob)
    general = await add_channel(storage, mine, owner)
    single = await add_channel(storage, other, bob)
    await add_channel(storage, other, bob)
    await storage.perform(GrantChannelRole(channel_id=single, user_id=owner, role="viewer", now_ms=NOW))
    seen = await visible(storage, owner)
    assert seen.guild_ids == (mine,)
    assert set(seen.channel_ids) == {general, single}
    assert (await visible(storage, owner, max_channels=1)).channel_ids == seen.channel_ids[:1]


async def test_the_audience_of_users_is_their_small_guilds(storage: Storage) -> None:
    """PROTOCOL 7.13.3."""
    owner, member, stranger = [await add_user(storage) for _ in range(3)]
    small, large = [await add_guild(storage, owner) for _ in range(2)]
    for user in (member, stranger):
        await storage.perform(GrantGuildRole(guild_id=large, user_id=user, role="guest", now_ms=NOW))
    await storage.perform(GrantGuildRole(guild_id=small, user_id=member, role="guest", now_ms=NOW))
    asked = (owner, member, new_id())
    found = await storage.perform(FindAudience(asked, 2))
    assert found == {owner: (small,), member: (small,)}
    found = await storage.perform(FindAudience(asked, 3))
    assert {user: set(guilds) for user, guilds in found.items()} == {owner: {small, large}, member: {small, large}}
    assert await storage.perform(FindAudience((), 3)) == {}


async def test_a_store_tells_of_what_it_appends_to_the_logs_of_guilds_and_users(storage: Storage) -> None:
    """PROTOCOL 10.4.7."""
    heard = HeardFromStorage()
    storage.attach(heard)
    owner, member = await add_user(storage), await add_user(storage)
    guild = await add_guild(storage, owner)
    await storage.perform(accept(await invite(storage, guild, owner), member))
    logs = {log_id: [event for event in heard.events if event.log_id == log_id] for log_id in (guild, member)}
    for log_id, events in logs.items():
        stored = await storage.perform(ReadEvents(log_id=log_id, after=0, limit=200))
        assert stored is not None
        assert [(event.sequence, event.wire) for event in events] == [(event.sequence, event.wire) for event in stored]
    assert all(logs.values())
    before = len(heard.events)
    await refused(
        storage, RenameGuild(author=Author(member), guild_id=guild, name="x", now_ms=NOW), ErrorCode.FORBIDDEN
    )
    assert len(heard.events) == before
