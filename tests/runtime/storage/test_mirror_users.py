"""Names of users of other servers, in the mirror of a third server's guild."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from openguild_proto.effects.guilds import ListMembers
from openguild_proto.effects.logs import FindLogHead
from openguild_proto.effects.mirrors import JoinFromServer, ReadSnapshot, StoreMirror
from openguild_proto.errors import ErrorCode, Refusal
from openguild_proto.mirror_records import MirroredMember, RemoteUser, Snapshot
from openguild_runtime.storage.base import Storage
from tests.support.deeds import add_channel, add_guild, add_user
from tests.support.guild_deeds import invite
from tests.support.owner_server import HERE, NOW_MS, OWNER, Owner, new_id

pytestmark = pytest.mark.anyio


async def test_a_user_is_renamed_by_their_home_only(storage: Storage) -> None:
    owner, stranger = Owner(), new_id()
    owner.join(new_id())
    snapshot: Snapshot = owner.do(ReadSnapshot(HERE, owner.guild_id))

    async def store(epoch: int, hers: str, strangers: str) -> dict[str, str]:
        members = [
            MirroredMember(owner.user_id, hers, "owner", NOW_MS),
            MirroredMember(stranger, strangers, "member", NOW_MS, None, "third.example"),
        ]
        told = replace(snapshot, epoch=epoch, members=members, channels=[])
        await storage.perform(StoreMirror(OWNER, owner.guild_id, told, NOW_MS))
        return {line.user_id: line.username for line in await storage.perform(ListMembers(owner.guild_id))}

    assert await store(2, "olga", "theo") == {owner.user_id: "olga", stranger: "theo"}
    assert await store(3, "olga the second", "admin") == {owner.user_id: "olga the second", stranger: "theo"}


async def test_nobody_has_the_id_of_a_guild_or_a_channel(storage: Storage) -> None:
    """Neither by a join, nor by what the owner of a mirrored guild says (PROTOCOL 16.5.6)."""
    user = await add_user(storage)
    guild = await add_guild(storage, user)
    taken = (guild, await add_channel(storage, guild, user))
    code = await invite(storage, guild, user)
    places = [await storage.perform(FindLogHead(log_id)) for log_id in taken]
    owner = Owner()
    snapshot = owner.join(user).snapshot
    assert snapshot is not None
    lies = [MirroredMember(log_id, "liar", "member", NOW_MS) for log_id in taken]
    told = replace(snapshot, members=[*snapshot.members, *lies])
    await storage.perform(StoreMirror(OWNER, owner.guild_id, told, NOW_MS))
    assert {line.user_id for line in await storage.perform(ListMembers(owner.guild_id))} == {owner.user_id}
    for log_id in taken:
        with pytest.raises(Refusal) as refused:
            await storage.perform(
                JoinFromServer(OWNER, RemoteUser(log_id, "liar"), code, "member", NOW_MS, 100, wants_snapshot=True)
            )
        assert refused.value.code is ErrorCode.ID_TAKEN
    assert [await storage.perform(FindLogHead(log_id)) for log_id in taken] == places
