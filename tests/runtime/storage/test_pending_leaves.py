"""Users who left a mirrored guild while its owner was away, and joins whose answer was lost: one suite for every store."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from openguild_proto.effects.guilds import FindGuildAccess, ListMembers, RemoveMember
from openguild_proto.effects.mirrors import (
    KEPT_MS,
    TOLD_MS,
    ClaimPendingLeave,
    EndPendingLeave,
    FindMirrorHead,
    FindNextMirror,
    FindPendingLeaves,
    LeaveMirror,
    NoteMistaken,
    NotePendingLeave,
    PendingLeave,
    StoreMirror,
)
from openguild_proto.limits import MAX_NOTED_UNKNOWN
from openguild_proto.mirror_records import RemoteUser
from openguild_proto.records import Author, MemberChange
from openguild_runtime.storage.base import Storage
from tests.runtime.storage.test_gone_members import left
from tests.runtime.storage.test_mirrors import level, mirrored, register
from tests.support.owner_server import NOW_MS, OWNER, Owner, new_id

pytestmark = pytest.mark.anyio


async def pending_leaves(storage: Storage, owner: Owner, now_ms: int = NOW_MS) -> list[PendingLeave]:
    found = await storage.perform(FindPendingLeaves(OWNER, now_ms, 100))
    return [pending for pending in found if pending.guild_id == owner.guild_id]


async def test_users_leave_and_the_last_one_takes_the_mirror_along(kept_storage: Storage) -> None:
    storage, owner = kept_storage, Owner()
    bob, carol = await mirrored(storage, owner), await register(storage, "carol")
    joined = owner.join(carol, "carol")
    await storage.perform(StoreMirror(OWNER, owner.guild_id, None, NOW_MS, joined=joined.member, stands=joined.place))
    for origin, user_id in ((OWNER, new_id()), ("thief.example", bob)):
        assert await storage.perform(LeaveMirror(origin, owner.guild_id, user_id, NOW_MS)) is MemberChange.NOT_MEMBER
    assert await storage.perform(LeaveMirror(OWNER, owner.guild_id, bob, NOW_MS)) is MemberChange.DONE
    assert {line.user_id for line in await storage.perform(ListMembers(owner.guild_id))} == {owner.user_id, carol}
    assert [content.removed for content in await left(storage, bob)] == [False]
    assert await pending_leaves(storage, owner) == [PendingLeave(owner.guild_id, RemoteUser(bob, "bob"), NOW_MS)]
    assert await storage.perform(LeaveMirror(OWNER, owner.guild_id, carol, NOW_MS)) is MemberChange.DONE
    assert await storage.perform(FindMirrorHead(OWNER, owner.guild_id)) is None
    assert await storage.perform(FindGuildAccess(owner.guild_id, carol)) is None
    found = await pending_leaves(storage, owner)
    assert {pending.user.user_id for pending in found} == {bob, carol}
    for pending in found:
        await storage.perform(EndPendingLeave(OWNER, pending))
    assert await pending_leaves(storage, owner) == []


async def test_a_join_is_undone_unless_the_user_is_a_member(kept_storage: Storage) -> None:
    storage, owner = kept_storage, Owner()
    bob = await register(storage, "bob")
    await storage.perform(NotePendingLeave(OWNER, owner.guild_id, bob, NOW_MS + 60_000))
    assert await pending_leaves(storage, owner) == []
    (due,) = await pending_leaves(storage, owner, NOW_MS + 60_000)
    await storage.perform(NotePendingLeave(OWNER, owner.guild_id, bob, NOW_MS + 90_000))
    await storage.perform(EndPendingLeave(OWNER, due))
    assert len(await pending_leaves(storage, owner, NOW_MS + 90_000)) == 1, "noted again meanwhile"
    joined = owner.join(bob)
    await storage.perform(StoreMirror(OWNER, owner.guild_id, joined.snapshot, NOW_MS, joined=joined.member))
    assert await pending_leaves(storage, owner, NOW_MS + 90_000) == []
    await storage.perform(NotePendingLeave(OWNER, owner.guild_id, bob, NOW_MS))
    assert await pending_leaves(storage, owner) == [], "a member"


async def test_whom_the_owner_takes_for_members_is_noted(kept_storage: Storage) -> None:
    """By its word, or by the event of a join. So are unknown ones, for accounts may be deleted; not members, nor others' users."""
    storage, owner = kept_storage, Owner()
    bob, carol, dave = await mirrored(storage, owner), await register(storage, "carol"), await register(storage, "dave")
    deleted = new_id()
    asked = (bob, dave, carol, owner.user_id, deleted, deleted)
    await storage.perform(NoteMistaken(OWNER, owner.guild_id, asked, NOW_MS))
    assert {(each.user.user_id, each.due_ms) for each in await pending_leaves(storage, owner)} == {
        (carol, NOW_MS), (dave, NOW_MS), (deleted, NOW_MS)
    }  # fmt: skip
    for pending in await pending_leaves(storage, owner):
        await storage.perform(EndPendingLeave(OWNER, pending))
    owner.join(carol, "carol")
    await level(storage, owner, owner.guild_id)
    (told,) = await pending_leaves(storage, owner)
    assert told.user.user_id == carol


async def test_an_owner_that_makes_up_users_does_not_fill_the_store(kept_storage: Storage) -> None:
    storage, guild_id = kept_storage, new_id()
    carol = await register(storage, "carol")
    for _ in range(2):
        made_up = tuple(new_id() for _ in range(MAX_NOTED_UNKNOWN - 1))
        await storage.perform(NoteMistaken("liar.example", guild_id, made_up, NOW_MS))
    await storage.perform(NoteMistaken("liar.example", guild_id, (carol,), NOW_MS))
    found = await storage.perform(FindPendingLeaves("liar.example", NOW_MS, 2 * MAX_NOTED_UNKNOWN))
    assert len(found) == MAX_NOTED_UNKNOWN + 1
    assert carol in {pending.user.user_id for pending in found}


async def test_partings_of_owners_that_are_gone_for_good_go_whoever_has_left(kept_storage: Storage) -> None:
    storage, guild_id = kept_storage, new_id()
    noted_ms = NOW_MS - 1_000  # before those of other tests
    await storage.perform(NoteMistaken("lost.example", guild_id, (new_id(),), noted_ms))
    later_ms = noted_ms + KEPT_MS
    await storage.perform(NotePendingLeave(OWNER, guild_id, new_id(), later_ms))
    assert len(await storage.perform(FindPendingLeaves("lost.example", later_ms, 10))) == 1
    await storage.perform(NotePendingLeave(OWNER, guild_id, new_id(), later_ms + 1))
    assert await storage.perform(FindPendingLeaves("lost.example", later_ms, 10)) == ()
    for pending in await storage.perform(FindPendingLeaves(OWNER, later_ms + 1, 10)):
        await storage.perform(EndPendingLeave(OWNER, pending))


async def test_what_is_noted_again_is_another_parting_and_not_due_before(kept_storage: Storage) -> None:
    storage, owner = kept_storage, Owner()
    await mirrored(storage, owner)
    carol = await register(storage, "carol")
    asked = NotePendingLeave(OWNER, owner.guild_id, carol, NOW_MS + 60_000)
    assert await storage.perform(asked) is True
    assert await storage.perform(asked) is False
    await storage.perform(NoteMistaken(OWNER, owner.guild_id, (carol,), NOW_MS))
    assert await pending_leaves(storage, owner, NOW_MS + 60_000) == [], "the join may be under way"
    await storage.perform(
        EndPendingLeave(OWNER, PendingLeave(owner.guild_id, RemoteUser(carol, "carol"), asked.due_ms))
    )
    (noted,) = await pending_leaves(storage, owner, NOW_MS + 60_001)
    assert noted.due_ms == NOW_MS + 60_001


async def test_a_join_that_came_to_nothing_leaves_what_the_owner_is_to_hear(kept_storage: Storage) -> None:
    """She joined, was removed, and joined by a request that was given up, before the answer to the first one came."""
    storage, owner = kept_storage, Owner()
    await mirrored(storage, owner)
    carol = await register(storage, "carol")
    joined = owner.join(carol, "carol")
    owner.do(RemoveMember(Author(owner.user_id), owner.guild_id, carol, NOW_MS))
    owner.join(carol, "carol")
    await level(storage, owner, owner.guild_id)
    await storage.perform(StoreMirror(OWNER, owner.guild_id, None, NOW_MS, joined=joined.member, stands=joined.place))
    assert [each.user.user_id for each in await pending_leaves(storage, owner, NOW_MS + 1)] == [carol]


async def test_mirrors_are_found_in_turn(kept_storage: Storage) -> None:
    storage, owners = kept_storage, [Owner() for _ in range(3)]
    for owner in owners:
        await mirrored(storage, owner)
    found, past = [], None
    while (past := await storage.perform(FindNextMirror(OWNER, past))) is not None:
        found.append(past)
    assert found == sorted(found)
    assert {owner.guild_id for owner in owners} <= set(found)
    assert await storage.perform(FindNextMirror("nobody.example", None)) is None


async def test_a_join_is_not_noted_while_the_owner_is_told(kept_storage: Storage) -> None:
    storage, owner = kept_storage, Owner()
    bob = await mirrored(storage, owner)
    await storage.perform(LeaveMirror(OWNER, owner.guild_id, bob, NOW_MS))
    (pending,) = await pending_leaves(storage, owner)
    asked = NotePendingLeave(OWNER, owner.guild_id, bob, NOW_MS + 60_000, NOW_MS)
    claim = ClaimPendingLeave(OWNER, pending, NOW_MS)
    assert await storage.perform(claim)
    assert not await storage.perform(claim)
    assert await storage.perform(asked) is None
    assert await pending_leaves(storage, owner, NOW_MS + TOLD_MS - 1) == []
    (again,) = await pending_leaves(storage, owner, NOW_MS + TOLD_MS)
    asked = replace(asked, now_ms=NOW_MS + TOLD_MS)
    assert await storage.perform(asked) is False
    assert not await storage.perform(replace(claim, pending=again))
    await storage.perform(EndPendingLeave(OWNER, replace(again, due_ms=asked.due_ms)))
    assert await storage.perform(asked) is True
