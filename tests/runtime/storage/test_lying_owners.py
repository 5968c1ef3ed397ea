"""What the store does not take from the owner of a mirrored guild (PROTOCOL 16.5)."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from openguild_proto.effects.channels import FindChannelAccess
from openguild_proto.effects.mirrors import FindMirrorPlace, MirrorEvents, StoreMirror
from openguild_proto.operations.mirrored_events import read_mirrored
from openguild_proto.records import LogPlace
from openguild_proto.schemas.log_contents import ChannelRoleSetContent
from openguild_proto.schemas.log_writer import LogWriter
from openguild_runtime.storage.base import Storage
from tests.runtime.storage.test_mirrors import mirrored, register
from tests.support.owner_server import HERE, NOW_MS, OWNER, SIGNER, Owner, keys_at

pytestmark = pytest.mark.anyio


async def test_roles_in_channels_are_for_members(kept_storage: Storage) -> None:
    """The member has it with the snapshot; a user who never joined has it neither with the snapshot nor by an event."""
    storage, owner = kept_storage, Owner()
    bob, carl = await register(storage, "bob"), await register(storage, "carl")
    joined = owner.join(bob)
    assert joined.snapshot is not None
    channels = [replace(line, roles={carl: "admin", bob: "admin"}) for line in joined.snapshot.channels]
    snapshot = replace(joined.snapshot, channels=channels)
    await storage.perform(StoreMirror(OWNER, owner.guild_id, snapshot, NOW_MS, joined=joined.member))

    async def role(user_id: str) -> str | None:
        access = await storage.perform(FindChannelAccess(owner.channel_id, user_id))
        return access.channel_role if access is not None else None

    assert (await role(carl), await role(bob)) == (None, "admin")
    place = await storage.perform(FindMirrorPlace(OWNER, owner.guild_id))
    assert place is not None
    for user_id, given in ((carl, "admin"), (bob, "moderator")):
        place = LogPlace(place.log_id, place.epoch, place.sequence + 1)
        content = ChannelRoleSetContent(owner.channel_id, user_id, given)
        built = LogWriter(OWNER, SIGNER).write(place, content, sender=owner.user_id, now_ms=NOW_MS)
        event = read_mirrored(built.wire, place, OWNER, HERE, keys_at, at_ms=NOW_MS, of_guild=True)
        outcome = await storage.perform(MirrorEvents(OWNER, owner.guild_id, owner.guild_id, 1, (event,)))
        assert outcome.place == place
    assert (await role(carl), await role(bob)) == (None, "moderator")


async def test_messages_of_own_users_that_the_owner_has_made_are_refused(kept_storage: Storage) -> None:
    storage, owner = kept_storage, Owner()
    user_id = await mirrored(storage, owner)
    owner.post("hers")
    owner.post("forged", sender=user_id)
    news = owner.news(owner.channel_id, 0)
    outcome = await storage.perform(MirrorEvents(OWNER, owner.guild_id, owner.channel_id, 1, news))
    assert (outcome.status, outcome.place and outcome.place.sequence) == ("refused", 0)
    outcome = await storage.perform(MirrorEvents(OWNER, owner.guild_id, owner.channel_id, 1, news[:1]))
    assert (outcome.status, outcome.place and outcome.place.sequence) == ("ok", 1)
