"""Mirrors of an owner whose database was restored. One suite for every store."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from openguild_proto.effects.mirrors import ANOTHER, MirrorEvents
from openguild_runtime.storage.base import Storage
from tests.runtime.storage.test_mirrors import level, mirrored, storage
from tests.support.owner_server import OWNER, Owner

__all__ = ["storage"]
pytestmark = pytest.mark.anyio


async def test_what_an_owner_says_anew_of_a_place_is_refused(storage: Storage) -> None:
    """Its database was restored without a new epoch. Until its log is as long as the mirror, nothing else would tell."""
    owner = Owner()
    await mirrored(storage, owner)
    for text in ("one", "lost", "lost, too"):
        owner.post(text)
    assert (await level(storage, owner, owner.channel_id)).status == "ok"
    owner.post("said anew")
    (said,) = owner.news(owner.channel_id, 3)
    for sequence in (2, 3):
        events = (replace(said, sequence=sequence),)
        refused = await storage.perform(MirrorEvents(OWNER, owner.guild_id, owner.channel_id, 1, events))
        assert (refused.status, refused.reason) == ("refused", ANOTHER)
    assert (await level(storage, owner, owner.channel_id)).status == "ok"
