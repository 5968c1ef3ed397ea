"""Owners that are silent, and a guild that another owner gives up: one suite for every store (PROTOCOL 16.10)."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from openguild_proto.effects.channels import FindChannelAccess
from openguild_proto.effects.deliveries import FindBehind
from openguild_proto.effects.federation import NoteContact
from openguild_proto.effects.guilds import FindGuildAccess
from openguild_proto.effects.handovers import (
    FindOwnership,
    FindSilentOwners,
    FindSuccession,
    FollowHandover,
    ListHandovers,
    SetSuccessor,
    SilentOwner,
    TakeGuild,
)
from openguild_proto.effects.mirrors import StoreMirror
from openguild_proto.mirror_records import Handover
from openguild_runtime.storage.base import Storage
from tests.runtime.storage.test_handing_over import ours
from tests.support.deeds import add_user, append, new_id
from tests.support.owner_server import HERE, NOW_MS, OWNER, Owner

pytestmark = pytest.mark.anyio
EPOCH = 9_000_000


@pytest.fixture
def storage(kept_storage: Storage) -> Storage:
    return kept_storage


async def test_an_owner_goes_on_in_a_later_term(storage: Storage) -> None:
    """With all it has: the other one owned the guild in the term between."""
    made = await ours(storage)
    await storage.perform(append(made.channel, made.owner, author=made.author))
    between = made.handover(kind="succession", serial=1)
    given_up = made.handover(owner=made.peer, to=HERE, term=3)
    named = made.handover(kind="succession", serial=2)
    assert await storage.perform(SetSuccessor(made.author, made.guild, named, 2, NOW_MS))
    before = await storage.perform(FindGuildAccess(made.guild, made.owner))
    assert before is not None
    assert not await storage.perform(TakeGuild(replace(given_up, term=0), EPOCH, None, (), NOW_MS))
    taking = TakeGuild(given_up, EPOCH, None, (), NOW_MS, (between,))
    assert await storage.perform(taking)
    assert await storage.perform(taking), "it is told again"
    assert await storage.perform(ListHandovers(made.guild)) == (between, given_up)
    assert await storage.perform(FindSuccession(made.guild)) is None, "it was of an earlier term"
    ownership = await storage.perform(FindOwnership(made.guild))
    assert ownership is not None
    assert (ownership.origin, ownership.term, ownership.serial) == (None, 3, 2)
    after = await storage.perform(FindGuildAccess(made.guild, made.owner))
    channel = await storage.perform(FindChannelAccess(made.channel, made.owner))
    assert after is not None
    assert channel is not None
    assert (after.place.epoch, after.place.sequence, after.base) == (EPOCH, before.place.sequence + 1, 0)
    assert (channel.channel.origin, channel.channel.epoch, channel.head) == (None, EPOCH, 1)
    behind = await storage.perform(FindBehind(made.peer, 10))
    assert {(log.log_id, log.head.epoch) for log in behind} == {(made.guild, EPOCH), (made.channel, EPOCH)}
    assert all(log.epoch != EPOCH for log in behind), "each mirror is told to begin anew"


async def test_silent_owners_with_their_guilds(storage: Storage) -> None:
    owners = (Owner(), Owner(), Owner())
    quiet, heard, never = (f"{name}-{new_id()}.example" for name in ("quiet", "heard", "never"))
    for owner, server in zip(owners, (quiet, heard, never), strict=True):
        joined = owner.join(await add_user(storage))
        assert await storage.perform(StoreMirror(OWNER, owner.guild_id, joined.snapshot, NOW_MS, joined=joined.member))
        moved = FollowHandover(owner_change(owner.guild_id, server))
        assert await storage.perform(moved)
    await storage.perform(NoteContact(quiet, NOW_MS - 1))
    await storage.perform(NoteContact(heard, NOW_MS))
    found = await storage.perform(FindSilentOwners(NOW_MS, 10_000))
    assert [owner for owner in found if owner.server in {quiet, heard, never}] == [
        SilentOwner(never, 1), SilentOwner(quiet, 1)
    ]  # fmt: skip
    assert list(found) == sorted(found, key=lambda owner: (-owner.guilds, owner.server))
    assert len(await storage.perform(FindSilentOwners(NOW_MS, 1))) == 1


def owner_change(guild_id: str, to: str) -> Handover:
    return Handover("move", guild_id, OWNER, to, 2, NOW_MS, NOW_MS + 1_000)
