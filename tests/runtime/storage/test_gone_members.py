"""Users of this server whose membership of a mirrored guild ended unseen, and remote users who never joined."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from openguild_proto.effects.guilds import FindGuildAccess
from openguild_proto.effects.logs import ReadLogs
from openguild_proto.effects.mirrors import DropMirror, FindMirrorHead, KnowRemoteUser, ReadSnapshot, StoreMirror
from openguild_proto.effects.roles import GrantChannelRole, GrantGuildRole
from openguild_proto.mirror_records import RemoteUser, Snapshot
from openguild_proto.records import LogPart, MemberChange
from openguild_proto.schemas.events import parse_content, parse_event
from openguild_proto.schemas.log_contents import GuildLeftContent
from openguild_runtime.storage.base import Storage
from tests.runtime.storage.test_mirrors import mirrored, register
from tests.support.deeds import NOW, add_channel, add_guild, add_user
from tests.support.owner_server import HERE, NOW_MS, OWNER, Owner, new_id
from tests.support.peers import PEER, join

pytestmark = pytest.mark.anyio


async def left(storage: Storage, user_id: str) -> list[GuildLeftContent]:
    """What the user's own log tells of guilds that they are no member of."""
    events = await storage.perform(ReadLogs(parts=(LogPart(user_id, 0, 10),)))
    contents = [parse_content(parse_event(event.wire)) for event in events]
    return [content for content in contents if isinstance(content, GuildLeftContent)]


async def test_whoever_is_missing_in_a_new_epoch_is_told(kept_storage: Storage) -> None:
    storage, owner = kept_storage, Owner()
    bob, carol = await mirrored(storage, owner), await register(storage, "carol")
    joined = owner.join(carol, "carol")
    again = StoreMirror(OWNER, owner.guild_id, None, NOW_MS, joined=joined.member, stands=joined.place)
    assert await storage.perform(again)
    snapshot: Snapshot = owner.do(ReadSnapshot(HERE, owner.guild_id))
    members = [member for member in snapshot.members if member.user_id != bob]
    assert await storage.perform(
        StoreMirror(OWNER, owner.guild_id, replace(snapshot, epoch=7, members=members), NOW_MS)
    )
    assert await left(storage, bob) == [GuildLeftContent(owner.guild_id, removed=True, reason=None)]
    assert await left(storage, carol) == []
    access = await storage.perform(FindGuildAccess(owner.guild_id, bob))
    assert access is None or access.role is None
    await storage.perform(DropMirror(OWNER, owner.guild_id, NOW_MS))
    assert await left(storage, carol) == [GuildLeftContent(owner.guild_id, removed=True, reason=None)]
    assert await storage.perform(FindMirrorHead(OWNER, owner.guild_id)) is None


async def test_operators_give_roles_to_remote_members_only(kept_storage: Storage) -> None:
    """A membership that nobody asked for would begin no mirror."""
    storage = kept_storage
    owner = await add_user(storage)
    guild, other = await add_guild(storage, owner), await add_guild(storage, owner)
    channel = await add_channel(storage, guild, owner)
    elsewhere = await add_channel(storage, other, owner)
    user = await join(storage, guild, owner)
    await storage.perform(KnowRemoteUser(PEER, RemoteUser(user, "renamed"), NOW))
    for guild_id, expected in ((other, MemberChange.NOT_MEMBER), (guild, MemberChange.DONE), (new_id(), None)):
        assert await storage.perform(GrantGuildRole(guild_id, user, "moderator", NOW)) is expected
    for channel_id, found in ((elsewhere, MemberChange.NOT_MEMBER), (channel, True), (new_id(), False)):
        assert await storage.perform(GrantChannelRole(channel_id, user, "viewer", NOW)) == found


async def test_operators_change_nothing_in_mirrors(kept_storage: Storage) -> None:
    storage, owner = kept_storage, Owner()
    user_id = await mirrored(storage, owner)
    assert await storage.perform(GrantGuildRole(owner.guild_id, user_id, "owner", NOW)) is None
    assert await storage.perform(GrantChannelRole(owner.channel_id, user_id, "owner", NOW)) is False
