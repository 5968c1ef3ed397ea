"""Both stores decide again, in the transaction of a change, whether its author may make it (PROTOCOL 5.8)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from itertools import count
from typing import Any

import anyio
import pytest

from openguild_proto.effects import StorageEffect, deliveries, federation, handovers, mirrors
from openguild_proto.effects.accounts import DeleteAccount, ListDevices, RevokeDevice, RevokeRefresh, SetDisplayName
from openguild_proto.effects.bans import BanUser, UnbanUser
from openguild_proto.effects.channels import (
    Appended,
    DeleteChannel,
    FindChannelAccess,
    InsertChannel,
    MarkRead,
    UpdateChannel,
)
from openguild_proto.effects.guilds import (
    AcceptInvite,
    DeleteGuild,
    DeleteInvite,
    FindInvite,
    InsertGuild,
    InsertInvite,
    ListMembers,
    RemoveMember,
    RenameGuild,
    SetMemberRole,
)
from openguild_proto.effects.roles import GrantChannelRole, GrantGuildRole, GrantServerRole, RevokeServerRole
from openguild_proto.effects.timeouts import EndTimeout, TimeOutMember
from openguild_proto.errors import ErrorCode, Refusal
from openguild_proto.memory import PERFORMERS
from openguild_proto.policy.permissions import ROLES
from openguild_proto.records import Author, InviteRecord, MemberChange
from openguild_runtime.storage.base import Storage
from tests.support.deeds import (
    NOW,
    add_channel,
    add_guild,
    add_user,
    append,
    control_head,
    heads,
    login,
    new_id,
    perform_unless_locked,
)
from tests.support.passwords import PASSWORD_HASH, change_password

pytestmark = pytest.mark.anyio

# What nobody's right stands behind: reads, an operator's commands, and what a password or a refresh token proves.
WITHOUT_AUTHOR = {
    "BlockLogins", "CountAttempt", "GrantChannelRole", "GrantGuildRole", "GrantServerRole", "IndexMessages", "InsertUser",
    "OpenSession", "PruneExpired", "PurgeDeleted",
    "RecordLineage", "RenewEpochs", "RevokeRefresh", "RevokeServerRole", "RotateRefresh", "SetPassword", "UnblockLogins",
}  # fmt: skip
READS = ("Describe", "Find", "List", "Read", "Search")
FOREVER = 4_000_000_000_000  # by the database's clock, too
_logins = count(1)  # of refresh tokens, which all tests share a database for


@pytest.fixture
def storage(kept_storage: Storage) -> Storage:
    return kept_storage


def new_invite(author: Author, guild: str) -> InsertInvite:
    return InsertInvite(
        author=author, code=new_id(), guild_id=guild, max_uses=None, expires_at_ms=None, now_ms=NOW
    )  # fmt: skip


class Place:
    """A guild with a channel, another member and an invite of its owner, and an admin, whose session is `author`'s."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    async def build(self) -> Place:
        storage = self.storage
        self.owner, self.admin, self.other, self.banned = [await add_user(storage) for _ in range(4)]
        self.guild = await add_guild(storage, self.owner)
        self.channel = await add_channel(storage, self.guild, self.owner)
        self.code = await self.invite(self.guild)
        self.elsewhere = await self.invite(await add_guild(storage, self.owner))
        for user_id, role in ((self.admin, "admin"), (self.other, "member")):
            await storage.perform(GrantGuildRole(guild_id=self.guild, user_id=user_id, role=role, now_ms=NOW))
        self.timed_out = await add_user(storage)
        await storage.perform(GrantGuildRole(guild_id=self.guild, user_id=self.timed_out, role="member", now_ms=NOW))
        await storage.perform(
            TimeOutMember(
                author=Author(self.owner), guild_id=self.guild, user_id=self.timed_out, ends_ms=FOREVER, now_ms=NOW
            )
        )
        await storage.perform(BanUser(author=Author(self.owner), guild_id=self.guild, user_id=self.banned, now_ms=NOW))
        session, laptop = login(self.admin, next(_logins)), login(self.admin, next(_logins), "laptop")
        for effect in (session, laptop):
            await storage.perform(effect)
        self.author, self.token = Author(self.admin, session.session_id), session.refresh_hash
        return self

    async def invite(self, guild: str) -> str:
        made = await self.storage.perform(new_invite(Author(self.owner), guild))
        assert isinstance(made, InviteRecord)
        return made.code

    async def refused(self, effect: StorageEffect[Any]) -> ErrorCode:
        head = await control_head(self.storage)
        with pytest.raises(Refusal) as refusal:
            await self.storage.perform(effect)
        assert await control_head(self.storage) == head
        return refusal.value.code


@pytest.fixture
async def place(storage: Storage) -> Place:
    return await Place(storage).build()


BY_ROLE: dict[str, Callable[[Place], StorageEffect[Any]]] = {
    "promote": lambda p: SetMemberRole(
        author=p.author, guild_id=p.guild, user_id=p.other, role="moderator", now_ms=NOW
    ),
    "ban": lambda p: BanUser(author=p.author, guild_id=p.guild, user_id=p.other, now_ms=NOW),
    "end a ban": lambda p: UnbanUser(author=p.author, guild_id=p.guild, user_id=p.banned, now_ms=NOW),
    "time out": lambda p: TimeOutMember(
        author=p.author, guild_id=p.guild, user_id=p.other, ends_ms=NOW + 1, now_ms=NOW
    ),
    "end a time-out": lambda p: EndTimeout(author=p.author, guild_id=p.guild, user_id=p.timed_out, now_ms=NOW),
    "kick": lambda p: RemoveMember(author=p.author, guild_id=p.guild, user_id=p.other, now_ms=NOW),
    "rename the guild": lambda p: RenameGuild(author=p.author, guild_id=p.guild, name="x", now_ms=NOW),
    "delete the guild": lambda p: DeleteGuild(author=p.author, guild_id=p.guild),
    "create an invite": lambda p: new_invite(p.author, p.guild),
    "delete an invite": lambda p: DeleteInvite(author=p.author, code=p.code, now_ms=NOW),
    "create a channel": lambda p: InsertChannel(
        author=p.author, channel_id=new_id(), guild_id=p.guild, name="x", now_ms=NOW
    ),
    "rename a channel": lambda p: UpdateChannel(author=p.author, channel_id=p.channel, name="x", now_ms=NOW),
    "delete a channel": lambda p: DeleteChannel(author=p.author, channel_id=p.channel, now_ms=NOW),
    "post": lambda p: append(p.channel, p.admin, author=p.author),
}
BY_MEMBERSHIP: dict[str, Callable[[Place], StorageEffect[Any]]] = {
    "read": lambda p: MarkRead(author=p.author, channel_id=p.channel, sequence=None, now_ms=NOW),
}
BY_SESSION: dict[str, Callable[[Place], StorageEffect[Any]]] = {
    "create a guild": lambda p: InsertGuild(author=p.author, guild_id=new_id(), name="x", now_ms=NOW),
    "join": lambda p: AcceptInvite(author=p.author, code=p.elsewhere, role="member", now_ms=NOW),
    "leave": lambda p: RemoveMember(author=p.author, guild_id=p.guild, user_id=p.admin, now_ms=NOW),
    "change the profile": lambda p: SetDisplayName(author=p.author, display_name="x", now_ms=NOW),
    "change the password": lambda p: change_password(p.author, NOW + 1),
    "delete the account": lambda p: DeleteAccount(author=p.author, checked_hash=PASSWORD_HASH, now_ms=NOW + 1),
    "sign a device out": lambda p: RevokeDevice(author=p.author, device_id="laptop", now_ms=NOW + 1),
}


BETWEEN_SERVERS = {deliveries.__name__, federation.__name__, handovers.__name__, mirrors.__name__}
"""Their changes are those of servers, or of users whose own server has decided."""


def test_every_change_that_somebody_makes_names_its_author() -> None:
    changes = {
        kind for kind in PERFORMERS if not kind.__name__.startswith(READS) and kind.__module__ not in BETWEEN_SERVERS
    }
    unnamed = {kind.__name__ for kind in changes if "author" not in kind.__struct_fields__}
    assert unnamed == WITHOUT_AUTHOR
    tried = BY_ROLE | BY_MEMBERSHIP | BY_SESSION
    assert len({kind for kind in changes if kind.__name__ not in unnamed}) == len(tried) - 1  # leaving is a removal


@pytest.mark.parametrize("change", BY_ROLE)
async def test_a_change_after_its_authors_demotion_is_refused(place: Place, change: str) -> None:
    demote = SetMemberRole(
        author=Author(place.owner), guild_id=place.guild, user_id=place.admin, role="guest", now_ms=NOW
    )
    assert await place.storage.perform(demote) is MemberChange.DONE
    assert await place.refused(BY_ROLE[change](place)) is ErrorCode.FORBIDDEN


@pytest.mark.parametrize("change", BY_ROLE | BY_MEMBERSHIP)
async def test_a_change_after_its_authors_removal_is_refused(place: Place, change: str) -> None:
    remove = RemoveMember(author=Author(place.owner), guild_id=place.guild, user_id=place.admin, now_ms=NOW)
    assert await place.storage.perform(remove) is MemberChange.DONE
    assert await place.refused((BY_ROLE | BY_MEMBERSHIP)[change](place)) is ErrorCode.NOT_FOUND


@pytest.mark.parametrize("change", BY_ROLE | BY_MEMBERSHIP | BY_SESSION)
async def test_a_change_after_its_session_has_ended_is_refused(place: Place, change: str) -> None:
    await place.storage.perform(RevokeRefresh(refresh_hash=place.token, now_ms=NOW + 1))
    assert await place.refused((BY_ROLE | BY_MEMBERSHIP | BY_SESSION)[change](place)) is ErrorCode.UNAUTHORIZED


@pytest.mark.parametrize("change", BY_ROLE | BY_MEMBERSHIP | BY_SESSION)
async def test_every_change_is_made_while_the_right_lasts(place: Place, change: str) -> None:
    outcome = await place.storage.perform((BY_ROLE | BY_MEMBERSHIP | BY_SESSION)[change](place))
    assert outcome not in {MemberChange.NOT_MEMBER, MemberChange.LAST_OWNER, False}


async def test_a_repeated_post_needs_the_right_too(place: Place) -> None:
    first = append(place.channel, place.admin, nonce="n", author=place.author)
    assert isinstance(await place.storage.perform(first), Appended)
    again = append(place.channel, place.admin, nonce="n", author=place.author)
    outcome = await place.storage.perform(again)
    assert isinstance(outcome, Appended)
    assert outcome.repeated
    await place.storage.perform(
        RemoveMember(author=Author(place.owner), guild_id=place.guild, user_id=place.admin, now_ms=NOW)
    )
    assert await place.refused(again) is ErrorCode.NOT_FOUND


async def test_a_batch_stores_the_posts_of_those_who_may(place: Place) -> None:
    await place.storage.perform(GrantGuildRole(guild_id=place.guild, user_id=place.other, role="viewer", now_ms=NOW))
    senders = [place.admin, place.other, place.owner, await add_user(place.storage)]
    outcomes: list[object] = [None] * 12

    async def post(number: int) -> None:
        user_id = senders[number % 4]
        try:
            outcomes[number] = await place.storage.perform(append(place.channel, user_id, author=Author(user_id)))
        except Refusal as refusal:
            outcomes[number] = refusal.code

    async with anyio.create_task_group() as tasks:
        for number in range(12):
            tasks.start_soon(post, number)
    for number, outcome in enumerate(outcomes):
        expected = (Appended, ErrorCode.FORBIDDEN, Appended, ErrorCode.NOT_FOUND)[number % 4]
        assert outcome is expected or isinstance(outcome, Appended) is (expected is Appended)
    assert await heads(place.storage, [place.channel]) == {place.channel: 6}


@pytest.mark.parametrize("by", ["a member", "the command line"])
async def test_a_demotion_takes_higher_roles_in_channels_along(place: Place, by: str) -> None:
    """Of this guild; and a role that somebody is given afterwards counts."""
    storage, user_id = place.storage, place.admin
    other_guild = await add_guild(storage, place.owner)
    channels = [place.channel, await add_channel(storage, place.guild, place.owner)]
    elsewhere = await add_channel(storage, other_guild, place.owner)

    async def give(channel: str, role: str) -> None:
        await storage.perform(GrantChannelRole(channel_id=channel, user_id=user_id, role=role, now_ms=NOW))

    async def demote(role: str) -> None:
        if by == "a member":
            author = Author(place.owner)
            await storage.perform(
                SetMemberRole(author=author, guild_id=place.guild, user_id=user_id, role=role, now_ms=NOW)
            )
        else:
            await storage.perform(GrantGuildRole(guild_id=place.guild, user_id=user_id, role=role, now_ms=NOW))

    async def roles() -> list[str | None]:
        found = [
            await storage.perform(FindChannelAccess(channel_id=channel, user_id=user_id))
            for channel in (*channels, elsewhere)
        ]
        return [access.channel_role if access is not None else None for access in found]

    for channel, role in zip((*channels, elsewhere), ("moderator", "viewer", "moderator"), strict=True):
        await give(channel, role)
    await demote("moderator")
    assert await roles() == ["moderator", "viewer", "moderator"], "none was above it"
    await demote("contributor")
    assert await roles() == [None, "viewer", "moderator"]
    await give(place.channel, "moderator")
    await demote("member")
    assert await roles() == ["moderator", "viewer", "moderator"], "a promotion takes nothing"
    await demote("guest")
    assert await roles() == [None, None, "moderator"]


@pytest.mark.parametrize(
    ("left", "member_of", "survives"),
    [((), None, False), ((), "maintainer", True), ((), "member", False), (("moderator",), None, True),
     (("maintainer",), None, False), (("maintainer",), "guest", True)],
)  # fmt: skip
async def test_invites_by_a_server_role_end_with_it(
    storage: Storage, left: tuple[str, ...], member_of: str | None, survives: bool
) -> None:
    owner, admin = await add_user(storage), await add_user(storage)
    guild = await add_guild(storage, owner)
    if member_of is not None:
        await storage.perform(GrantGuildRole(guild_id=guild, user_id=admin, role=member_of, now_ms=NOW))
    for role in ("admin", *left):
        await storage.perform(GrantServerRole(user_id=admin, role=role, now_ms=NOW))
    made, owners = new_invite(Author(admin), guild), new_invite(Author(owner), guild)
    for effect in (made, owners):
        await storage.perform(effect)
    assert await storage.perform(RevokeServerRole(user_id=admin, role="admin", now_ms=NOW))
    assert (await storage.perform(FindInvite(code=made.code)) is not None) is survives
    assert await storage.perform(FindInvite(code=owners.code)) is not None


# --- each against the other --------------------------------------------------------------------------


async def test_of_two_owners_who_demote_each_other_one_does(storage: Storage) -> None:
    owner, alice, bob = [await add_user(storage) for _ in range(3)]
    guild = await add_guild(storage, owner)
    for _ in range(8):
        for user_id in (alice, bob):
            await storage.perform(GrantGuildRole(guild_id=guild, user_id=user_id, role="owner", now_ms=NOW))
        outcomes: list[object] = []

        async def demote(author: str, user_id: str, outcomes: list[object] = outcomes) -> None:
            effect = SetMemberRole(author=Author(author), guild_id=guild, user_id=user_id, role="guest", now_ms=NOW)
            try:
                outcomes.append(await storage.perform(effect))
            except Refusal as refusal:
                outcomes.append(refusal.code)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(demote, alice, bob)
            tasks.start_soon(demote, bob, alice)
        assert set(outcomes) == {MemberChange.DONE, ErrorCode.FORBIDDEN}


async def test_of_two_devices_that_sign_each_other_out_one_does(storage: Storage) -> None:
    user = await add_user(storage)
    for _ in range(8):
        phone, laptop = login(user, next(_logins)), login(user, next(_logins), "laptop")
        for effect in (phone, laptop):
            await storage.perform(effect)
        outcomes: list[object] = []

        async def end(session_id: str, device_id: str, outcomes: list[object] = outcomes) -> None:
            effect = RevokeDevice(author=Author(user, session_id), device_id=device_id, now_ms=NOW + 1)
            try:
                outcomes.append(await storage.perform(effect))
            except Refusal as refusal:
                outcomes.append(refusal.code)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(end, phone.session_id, "laptop")
            tasks.start_soon(end, laptop.session_id, "phone")
        assert set(outcomes) == {True, ErrorCode.UNAUTHORIZED}
        assert len(await storage.perform(ListDevices(user_id=user, now_ms=NOW + 2))) == 1


async def test_everything_at_once_ends_without_a_deadlock(place: Place) -> None:
    """Members change each other, post, log in and leave: nobody waits for ever, and nothing is unavailable for long."""
    storage, guild = place.storage, place.guild
    users = [place.owner, place.admin, place.other]

    async def act(user_id: str, others: list[str]) -> None:
        author = Author(user_id)
        for number in range(6):
            for effect in (
                SetMemberRole(
                    author=author, guild_id=guild, user_id=others[number % 2], role=ROLES[number % 3], now_ms=NOW
                ),
                append(place.channel, user_id, author=author),
                MarkRead(author=author, channel_id=place.channel, sequence=None, now_ms=NOW),
                login(user_id, next(_logins)),
                RemoveMember(author=author, guild_id=guild, user_id=others[(number + 1) % 2], now_ms=NOW),
                GrantGuildRole(guild_id=guild, user_id=user_id, role="owner", now_ms=NOW),
                GrantServerRole(user_id=others[0], role="viewer", now_ms=NOW),
                new_invite(author, guild),
                RevokeServerRole(user_id=others[0], role="viewer", now_ms=NOW),
                RevokeDevice(author=author, device_id="phone", now_ms=NOW + 1),
            ):
                with suppress(Refusal):
                    await perform_unless_locked(storage, effect)

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            for user_id in users:
                for _ in range(2):
                    tasks.start_soon(act, user_id, [other for other in users if other != user_id])
    assert "owner" in {member.role for member in await storage.perform(ListMembers(guild_id=guild))}
