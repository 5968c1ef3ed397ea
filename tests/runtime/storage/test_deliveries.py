"""What is known of the peers that mirror guilds: what they lack, when it ends, who delivers (PROTOCOL 16.8)."""

from __future__ import annotations

import anyio
import pytest

from openguild_proto.effects.channels import DeleteChannel
from openguild_proto.effects.deliveries import (
    AffectedPeers,
    BehindLog,
    CursorMove,
    FindAffectedPeers,
    FindBehind,
    FindEnded,
    FindMirrored,
    FindMirroring,
    MirroredLog,
    MoveCursors,
    NotePurged,
    TakeLeases,
)
from openguild_proto.effects.guilds import DeleteGuild, RemoveMember, RenameGuild
from openguild_proto.effects.logs import FindLogHead
from openguild_proto.effects.mirrors import ReadSnapshot
from openguild_proto.effects.roles import GrantGuildRole
from openguild_proto.records import Author, LogPosition, MemberChange
from openguild_runtime.storage.base import Storage
from tests.support.deeds import NOW, add_channel, add_guild, add_user, append, new_id
from tests.support.peers import join

pytestmark = pytest.mark.anyio


@pytest.fixture
def storage(kept_storage: Storage) -> Storage:
    return kept_storage


async def behind(storage: Storage, peer: str) -> tuple[BehindLog, ...]:
    return await storage.perform(FindBehind(peer=peer, limit=100))


async def place(storage: Storage, log_id: str) -> LogPosition:
    found = await storage.perform(FindLogHead(log_id=log_id))
    assert found is not None
    return found


async def move(storage: Storage, peer: str, log: LogPosition) -> None:
    await storage.perform(MoveCursors(moves=(CursorMove(peer, log),)))


async def level(storage: Storage, peer: str) -> None:
    for log in await behind(storage, peer):
        await move(storage, peer, log.head)


async def leave(storage: Storage, guild: str, user: str, now_ms: int = NOW) -> None:
    change = RemoveMember(author=Author(user), guild_id=guild, user_id=user, now_ms=now_ms)
    assert await storage.perform(change) is MemberChange.DONE


async def test_what_a_peer_lacks_comes_by_guild_its_own_log_first(storage: Storage) -> None:
    peer = f"{new_id()}.test"
    owner = await add_user(storage)
    guilds = sorted([await add_guild(storage, owner), await add_guild(storage, owner)])
    channels = {guild: await add_channel(storage, guild, owner) for guild in guilds}
    for guild in guilds:
        await join(storage, guild, owner, peer)
        assert await behind(storage, peer) == (), "it begins at the heads"
    for guild in guilds:
        await storage.perform(append(channels[guild]))
        await storage.perform(RenameGuild(author=Author(owner), guild_id=guild, name="n", now_ms=NOW))
    found = await behind(storage, peer)
    assert [log.log_id for log in found] == [log_id for guild in guilds for log_id in (guild, channels[guild])]
    assert [log.head.sequence - log.after for log in found] == [1, 1, 1, 1]
    assert [log.is_guild for log in found] == [True, False] * 2
    for number, log in enumerate(found):
        page = await storage.perform(FindBehind(peer=peer, limit=1, past=(log.guild_id, log.log_id)))
        assert page == found[number + 1 : number + 2]
    await move(storage, peer, found[1].head)
    assert await behind(storage, peer) == (found[0], *found[2:])
    await move(storage, peer, LogPosition(found[1].log_id, 1, 0))
    assert (await behind(storage, peer))[1].after == 0, "a peer may have less than before"


async def test_level_logs_are_listed_too_where_asked_for(storage: Storage) -> None:
    peer = f"{new_id()}.test"
    owner = await add_user(storage)
    guild = await add_guild(storage, owner)
    channels = sorted([await add_channel(storage, guild, owner) for _ in range(2)])
    user = await join(storage, guild, owner, peer)
    await storage.perform(append(channels[0]))
    found = await storage.perform(FindBehind(peer=peer, limit=9, level=True))
    assert [(log.log_id, log.head.sequence - log.after) for log in found] == [
        (guild, 0), (channels[0], 1), (channels[1], 0),
    ]  # fmt: skip
    past = (guild, channels[0])
    assert await storage.perform(FindBehind(peer=peer, limit=9, past=past, level=True)) == found[2:]
    await leave(storage, guild, user)
    assert [log.ends for log in await storage.perform(FindBehind(peer=peer, limit=9, level=True))] == [True]
    await level(storage, peer)
    assert await storage.perform(FindBehind(peer=peer, limit=9, level=True)) == ()


async def test_a_channel_made_after_the_join_counts_from_its_beginning(storage: Storage) -> None:
    peer = f"{new_id()}.test"
    owner = await add_user(storage)
    guild = await add_guild(storage, owner)
    await join(storage, guild, owner, peer)
    channel = await add_channel(storage, guild, owner)
    await level(storage, peer)
    assert await behind(storage, peer) == ()
    for _ in range(3):
        await storage.perform(append(channel))
    assert await behind(storage, peer) == (BehindLog(guild, LogPosition(channel, 1, 3), 0, 1),)
    await move(storage, peer, LogPosition(channel, 1, 2))
    assert await behind(storage, peer) == (BehindLog(guild, LogPosition(channel, 1, 3), 2, 1),)
    await storage.perform(DeleteChannel(author=Author(owner), channel_id=channel, now_ms=NOW))
    await level(storage, peer)
    await move(storage, peer, LogPosition(channel, 1, 3))
    assert await behind(storage, peer) == ()
    assert await storage.perform(FindMirrored(peer=peer, log_id=channel)) is None


async def test_only_peers_that_mirror_a_log_see_it(storage: Storage) -> None:
    peer, stranger = f"{new_id()}.test", f"{new_id()}.test"
    owner = await add_user(storage)
    guild, other = await add_guild(storage, owner), await add_guild(storage, owner)
    channel = await add_channel(storage, guild, owner)
    user = await join(storage, guild, owner, peer)
    await join(storage, other, owner, stranger)
    for log_id in (guild, channel):
        found = MirroredLog(guild, await place(storage, log_id))
        assert await storage.perform(FindMirrored(peer=peer, log_id=log_id)) == found
        assert await storage.perform(FindMirrored(peer=stranger, log_id=log_id)) is None
    for log_id in (user, new_id()):
        assert await storage.perform(FindMirrored(peer=peer, log_id=log_id)) is None
    await move(storage, stranger, LogPosition(channel, 1, 5))
    assert await behind(storage, stranger) == ()
    assert {peer, stranger} <= set(await storage.perform(FindMirroring()))


async def test_growth_wakes_the_peers_whose_lease_one_holds(storage: Storage) -> None:
    mine, others = sorted(f"{new_id()}.test" for _ in range(2)), f"{new_id()}.test"
    holder = new_id()
    owner = await add_user(storage)
    guild, alone = await add_guild(storage, owner), await add_guild(storage, owner)
    channel, unseen = await add_channel(storage, guild, owner), await add_channel(storage, alone, owner)
    for peer in mine:
        await join(storage, guild, owner, peer)
    for peer in mine:
        await level(storage, peer)
    await storage.perform(TakeLeases(peers=tuple(mine), holder=holder, now_ms=NOW, until_ms=NOW + 1))
    question = FindAffectedPeers(log_ids=(channel, unseen, alone, owner, new_id()), holder=holder)
    assert await storage.perform(question) == AffectedPeers((), (channel,), elsewhere=False)
    await storage.perform(append(channel))
    grown = BehindLog(guild, LogPosition(channel, 1, 1), 0, 1)
    woken = await storage.perform(question)
    assert woken == AffectedPeers(tuple((peer, grown) for peer in mine), (channel,), elsewhere=False)
    await join(storage, guild, owner, others)
    woken = await storage.perform(FindAffectedPeers(log_ids=(channel,), holder=holder))
    assert (woken.elsewhere, woken.free) == (True, True)
    await storage.perform(TakeLeases(peers=(others,), holder=new_id(), now_ms=NOW, until_ms=NOW + 1))
    woken = await storage.perform(FindAffectedPeers(log_ids=(channel,), holder=holder))
    assert (woken.elsewhere, woken.free) == (True, False)
    assert [(peer, log.log_id) for peer, log in woken.behind] == [
        (peer, log_id) for peer in mine for log_id in (guild, channel)
    ], "the guild's log comes with it"
    nothing = FindAffectedPeers(log_ids=(unseen, alone, owner), holder=holder)
    assert await storage.perform(nothing) == AffectedPeers((), (), elsewhere=False)


async def test_a_log_of_another_epoch_has_to_be_told(storage: Storage) -> None:
    peer = f"{new_id()}.test"
    owner = await add_user(storage)
    guild = await add_guild(storage, owner)
    await join(storage, guild, owner, peer)
    head = await place(storage, guild)
    await move(storage, peer, LogPosition(guild, head.epoch + 7, head.sequence))
    assert await behind(storage, peer) == (BehindLog(guild, head, head.sequence, head.epoch + 7),)


async def test_a_snapshot_whose_answer_is_lost_leaves_the_peer_behind(storage: Storage) -> None:
    peer = f"{new_id()}.test"
    owner = await add_user(storage)
    guild = await add_guild(storage, owner)
    channel = await add_channel(storage, guild, owner)
    await join(storage, guild, owner, peer)
    await level(storage, peer)
    await storage.perform(append(channel))
    lacks = await behind(storage, peer)
    assert [log.head.log_id for log in lacks] == [channel]
    assert await storage.perform(ReadSnapshot(peer, guild)) is not None
    assert await behind(storage, peer) == lacks
    await move(storage, peer, LogPosition(channel, lacks[0].head.epoch + 7, 0))
    assert await storage.perform(ReadSnapshot(peer, guild)) is not None
    assert await behind(storage, peer) == (), "what it had in another epoch is replaced"


async def test_the_removal_of_the_last_member_is_the_last_event(storage: Storage) -> None:
    peer = f"{new_id()}.test"
    owner = await add_user(storage)
    guild = await add_guild(storage, owner)
    channel = await add_channel(storage, guild, owner)
    users = [await join(storage, guild, owner, peer) for _ in range(2)]
    await level(storage, peer)
    await leave(storage, guild, users[0])
    await level(storage, peer)
    await storage.perform(append(channel))
    kick = RemoveMember(author=Author(owner), guild_id=guild, user_id=users[1], now_ms=NOW + 1, reason="spam")
    assert await storage.perform(kick) is MemberChange.DONE
    removal = await place(storage, guild)
    for _ in range(2):
        await storage.perform(RenameGuild(author=Author(owner), guild_id=guild, name="secret", now_ms=NOW + 2))
        await storage.perform(append(channel))
    last = BehindLog(guild, removal, removal.sequence - 1, 1, ends=True)
    assert await behind(storage, peer) == (last,)
    assert await storage.perform(FindEnded(peer=peer)) == (), "first the removal"
    assert await storage.perform(FindMirrored(peer=peer, log_id=channel)) is None
    await move(storage, peer, removal)
    assert await behind(storage, peer) == ()
    assert await storage.perform(FindEnded(peer=peer)) == (removal,)
    assert peer in await storage.perform(FindMirroring())
    await storage.perform(NotePurged(peer=peer, guild_ids=(guild,), now_ms=NOW))
    assert await storage.perform(FindEnded(peer=peer)) == (removal,), "an answer from before the end says nothing of it"
    await storage.perform(NotePurged(peer=peer, guild_ids=(guild, new_id()), now_ms=NOW + 3))
    assert await storage.perform(FindEnded(peer=peer)) == ()
    assert peer not in await storage.perform(FindMirroring())
    await move(storage, peer, removal)
    assert await behind(storage, peer) == ()


async def test_what_follows_a_removal_is_not_sent(storage: Storage) -> None:
    """The invites of the removed end by the same change."""
    peer = f"{new_id()}.test"
    owner = await add_user(storage)
    guild = await add_guild(storage, owner)
    user = await join(storage, guild, owner, peer)
    await storage.perform(GrantGuildRole(guild_id=guild, user_id=user, role="maintainer", now_ms=NOW))
    await join(storage, guild, user)
    await level(storage, peer)
    before = await place(storage, guild)
    await leave(storage, guild, user)
    assert (await place(storage, guild)).sequence == before.sequence + 2
    assert [log.head.sequence for log in await behind(storage, peer)] == [before.sequence + 1]


async def test_who_comes_back_is_delivered_to_again(storage: Storage) -> None:
    peer = f"{new_id()}.test"
    owner = await add_user(storage)
    guild = await add_guild(storage, owner)
    channel = await add_channel(storage, guild, owner)
    user = await join(storage, guild, owner, peer)
    await leave(storage, guild, user)
    await level(storage, peer)
    await storage.perform(NotePurged(peer=peer, guild_ids=(guild,), now_ms=NOW))
    await storage.perform(append(channel))
    await join(storage, guild, owner, peer, user)
    assert await storage.perform(FindEnded(peer=peer)) == ()
    await storage.perform(append(channel))
    (log,) = await behind(storage, peer)
    assert (log.log_id, log.after, log.head.sequence, log.ends) == (channel, 1, 2, False)


async def test_who_comes_back_before_the_purge_gets_what_is_missing(storage: Storage) -> None:
    """The peer keeps its mirror then, and has not got the removal."""
    peer = f"{new_id()}.test"
    owner = await add_user(storage)
    guild = await add_guild(storage, owner)
    channel = await add_channel(storage, guild, owner)
    user = await join(storage, guild, owner, peer)
    before = await place(storage, guild)
    await leave(storage, guild, user)
    later = await add_channel(storage, guild, owner)
    for each in (channel, later):
        await storage.perform(append(each))
    await join(storage, guild, owner, peer, user)
    found = await behind(storage, peer)
    assert [(log.log_id, log.after, log.ends) for log in found] == [
        (guild, before.sequence, False), *((each, 0, False) for each in sorted([channel, later])),
    ]  # fmt: skip


async def test_mirrors_of_a_deleted_guild_are_to_be_purged(storage: Storage) -> None:
    peers = [f"{new_id()}.test" for _ in range(2)]
    owner = await add_user(storage)
    guild = await add_guild(storage, owner)
    await add_channel(storage, guild, owner)
    users = [await join(storage, guild, owner, peer) for peer in peers]
    await leave(storage, guild, users[0])
    await storage.perform(DeleteGuild(author=Author(owner), guild_id=guild))
    holder, asked = new_id(), (guild, new_id())
    assert await storage.perform(FindAffectedPeers(asked, holder)) == AffectedPeers(
        (), (guild,), elsewhere=True, free=True
    )
    await storage.perform(TakeLeases(peers=(peers[1],), holder=holder, now_ms=NOW, until_ms=NOW + 1))
    woken = await storage.perform(FindAffectedPeers(asked, holder))
    assert woken == AffectedPeers((), (guild,), elsewhere=True, free=True, ended=(peers[1],))
    for peer in peers:
        assert await behind(storage, peer) == ()
        assert await storage.perform(FindEnded(peer=peer)) == (LogPosition(guild, 0, 0),)
        await storage.perform(NotePurged(peer=peer, guild_ids=(guild,), now_ms=2 * NOW))
        assert await storage.perform(FindEnded(peer=peer)) == ()


async def test_local_members_end_no_mirror(storage: Storage) -> None:
    peer = f"{new_id()}.test"
    owner = await add_user(storage)
    guild = await add_guild(storage, owner)
    local = await join(storage, guild, owner, f"{new_id()}.test")
    await join(storage, guild, owner, peer)
    await leave(storage, guild, local)
    assert all(not log.ends for log in await behind(storage, peer))
    assert await storage.perform(FindEnded(peer=peer)) == ()


async def test_a_join_and_a_removal_at_once_leave_a_mirror_to_members(storage: Storage) -> None:
    """The one must not end what the other begins."""
    owner = await add_user(storage)
    guild = await add_guild(storage, owner)
    for _ in range(6):
        peer = f"{new_id()}.test"
        user = await join(storage, guild, owner, peer)
        await level(storage, peer)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(leave, storage, guild, user)
            tasks.start_soon(join, storage, guild, owner, peer)
        assert not any(log.ends for log in await behind(storage, peer))
        assert await storage.perform(FindMirrored(peer=peer, log_id=guild)) is not None
