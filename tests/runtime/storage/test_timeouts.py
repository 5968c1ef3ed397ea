"""Time-outs of members on both stores (PROTOCOL 5.9)."""

from __future__ import annotations

import json

import pytest

from openguild_proto.effects.channels import Appended, FindChannelAccess
from openguild_proto.effects.guilds import FindGuildAccess, FindMember, ListMembers, RemoveMember, RenameGuild
from openguild_proto.effects.logs import ReadLogs
from openguild_proto.effects.roles import GrantChannelRole, GrantGuildRole, GrantServerRole
from openguild_proto.effects.timeouts import EndTimeout, TimeOutMember
from openguild_proto.errors import ErrorCode, Refusal
from openguild_proto.records import Author, ControlKind, LogPart, MemberChange
from openguild_runtime.storage.base import Storage
from tests.support.deeds import NOW, add_channel, add_guild, add_user, append
from tests.support.storage_handler import HeardFromStorage

pytestmark = pytest.mark.anyio

FOREVER = 4_000_000_000_000  # by the database's clock, too
PAST = NOW - 1


@pytest.fixture
def storage(kept_storage: Storage) -> Storage:
    return kept_storage


class Place:
    """A guild of Alice with a channel, in which Bob has a role of the channel beside that of the guild."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    async def build(self) -> Place:
        self.alice, self.bob = await add_user(self.storage), await add_user(self.storage)
        self.guild = await add_guild(self.storage, self.alice)
        self.channel = await add_channel(self.storage, self.guild, self.alice)
        await self.storage.perform(GrantGuildRole(guild_id=self.guild, user_id=self.bob, role="maintainer", now_ms=NOW))
        await self.storage.perform(
            GrantChannelRole(channel_id=self.channel, user_id=self.bob, role="moderator", now_ms=NOW)
        )
        return self

    async def time_out(
        self, ends_ms: int = FOREVER, author: str | None = None, user: str | None = None
    ) -> MemberChange:
        effect = TimeOutMember(
            author=Author(author or self.alice), guild_id=self.guild, user_id=user or self.bob, ends_ms=ends_ms, now_ms=NOW,
            reason="spam",
        )  # fmt: skip
        return await self.storage.perform(effect)

    async def end(self, author: str | None = None) -> bool:
        return await self.storage.perform(
            EndTimeout(author=Author(author or self.alice), guild_id=self.guild, user_id=self.bob, now_ms=NOW)
        )

    async def posts(self) -> bool:
        try:
            outcome = await self.storage.perform(append(self.channel, self.bob, author=Author(self.bob)))
        except Refusal as refusal:
            if refusal.code is not ErrorCode.FORBIDDEN:
                raise
            return False
        return isinstance(outcome, Appended)

    async def roles(self) -> tuple[str | None, str | None, str | None]:
        """Of Bob in the guild, and in the guild and the channel as the channel's access has them."""
        in_guild = await self.storage.perform(FindGuildAccess(guild_id=self.guild, user_id=self.bob))
        in_channel = await self.storage.perform(FindChannelAccess(channel_id=self.channel, user_id=self.bob))
        assert in_guild is not None
        assert in_channel is not None
        return in_guild.role, in_channel.guild_role, in_channel.channel_role


@pytest.fixture
async def place(storage: Storage) -> Place:
    return await Place(storage).build()


async def test_roles_count_less_and_come_back(place: Place) -> None:
    assert await place.posts()
    assert await place.time_out() is MemberChange.DONE
    assert await place.roles() == ("viewer", "viewer", "viewer")
    assert not await place.posts()
    with pytest.raises(Refusal, match="forbidden"):
        await place.storage.perform(RenameGuild(author=Author(place.bob), guild_id=place.guild, name="x", now_ms=NOW))
    member = await place.storage.perform(FindMember(guild_id=place.guild, user_id=place.bob))
    assert member is not None
    assert (member.role, member.timed_out_until_ms) == ("maintainer", FOREVER)
    listed = await place.storage.perform(ListMembers(guild_id=place.guild))
    assert {line.user_id: line.timed_out_until_ms for line in listed} == {place.alice: None, place.bob: FOREVER}
    assert await place.end() is True
    assert await place.roles() == ("maintainer", "maintainer", "moderator")
    assert await place.posts()
    assert await place.end() is False


async def test_what_is_over_counts_no_more(place: Place) -> None:
    await place.time_out(PAST)
    assert await place.roles() == ("maintainer", "maintainer", "moderator")
    assert await place.posts()
    assert await place.end() is False
    member = await place.storage.perform(FindMember(guild_id=place.guild, user_id=place.bob))
    assert member is not None
    assert member.timed_out_until_ms is None


async def test_lower_roles_and_roles_of_the_server_stay_as_they_are(place: Place) -> None:
    await place.storage.perform(GrantGuildRole(guild_id=place.guild, user_id=place.bob, role="guest", now_ms=NOW))
    await place.time_out()
    assert (await place.roles())[:2] == ("guest", "guest")
    await place.storage.perform(GrantServerRole(user_id=place.bob, role="moderator", now_ms=NOW))
    assert await place.posts()


async def test_it_outlasts_leaving_and_a_new_role(place: Place) -> None:
    await place.time_out()
    leave = RemoveMember(author=Author(place.bob), guild_id=place.guild, user_id=place.bob, now_ms=NOW)
    assert await place.storage.perform(leave) is MemberChange.DONE
    assert await place.time_out() is MemberChange.NOT_MEMBER
    assert await place.end() is False
    await place.storage.perform(GrantGuildRole(guild_id=place.guild, user_id=place.bob, role="admin", now_ms=NOW))
    assert (await place.roles())[0] == "viewer"


async def test_it_does_not_count_while_the_member_is_an_owner(place: Place) -> None:
    await place.time_out()
    await place.storage.perform(GrantGuildRole(guild_id=place.guild, user_id=place.bob, role="owner", now_ms=NOW))
    assert (await place.roles())[:2] == ("owner", "owner")
    assert await place.posts()
    member = await place.storage.perform(FindMember(guild_id=place.guild, user_id=place.bob))
    assert member is not None
    assert member.timed_out_until_ms is None
    await place.storage.perform(RenameGuild(author=Author(place.bob), guild_id=place.guild, name="x", now_ms=NOW))
    await place.storage.perform(GrantGuildRole(guild_id=place.guild, user_id=place.bob, role="member", now_ms=NOW))
    assert not await place.posts()


async def test_the_owners_role_in_a_channel_alone_counts_less(place: Place) -> None:
    await place.storage.perform(GrantChannelRole(channel_id=place.channel, user_id=place.bob, role="owner", now_ms=NOW))
    await place.time_out()
    assert await place.roles() == ("viewer", "viewer", "viewer")
    assert not await place.posts()


async def test_the_event_of_a_join_tells_of_it(place: Place) -> None:
    await place.time_out()
    leave = RemoveMember(author=Author(place.bob), guild_id=place.guild, user_id=place.bob, now_ms=NOW)
    assert await place.storage.perform(leave) is MemberChange.DONE
    await place.storage.perform(GrantGuildRole(guild_id=place.guild, user_id=place.bob, role="member", now_ms=NOW))
    events = [
        json.loads(event.wire) for event in await place.storage.perform(ReadLogs(parts=(LogPart(place.guild, 0, 99),)))
    ]
    told = [event["content"] for event in events if event["event_type"] == "member.joined"]
    assert [content.get("timed_out_until") for content in told if content["user_id"] == place.bob] == [
        None,
        "2096-10-02T07:06:40Z",
    ]


async def test_only_those_of_a_lower_rank_are_timed_out(place: Place) -> None:
    moderator = await add_user(place.storage)
    await place.storage.perform(
        GrantGuildRole(guild_id=place.guild, user_id=moderator, role="moderator", now_ms=NOW)
    )  # fmt: skip
    for author, user in ((moderator, place.alice), (moderator, moderator), (place.bob, moderator)):
        with pytest.raises(Refusal, match="forbidden"):
            await place.time_out(author=author, user=user)
    assert await place.time_out(author=moderator) is MemberChange.DONE
    await place.storage.perform(GrantGuildRole(guild_id=place.guild, user_id=place.bob, role="admin", now_ms=NOW))
    with pytest.raises(Refusal, match="forbidden"):
        await place.end(author=moderator)


async def test_the_log_and_the_replicas_hear_of_it(place: Place) -> None:
    place.storage.attach(heard := HeardFromStorage())
    await place.time_out()
    await place.end()
    assert [(record.kind, record.user_id) for record in heard.records] == [(ControlKind.MEMBER_CHANGED, place.bob)] * 2
    events = [
        json.loads(event.wire) for event in await place.storage.perform(ReadLogs(parts=(LogPart(place.guild, 0, 99),)))
    ]
    told = [event["content"] for event in events if event["event_type"] == "member.timed_out"]
    assert [(content.get("until"), content.get("reason")) for content in told] == [
        ("2096-10-02T07:06:40Z", "spam"),
        (None, None),
    ]
