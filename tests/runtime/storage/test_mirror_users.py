"""Names of users of other servers, in the mirror of a third server's guild."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from openguild_proto.effects.guilds import ListMembers
from openguild_proto.effects.mirrors import ReadSnapshot, StoreMirror
from openguild_proto.mirror_records import MirroredMember, Snapshot
from openguild_runtime.storage.base import Storage
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
