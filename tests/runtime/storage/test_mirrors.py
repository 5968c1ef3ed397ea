"""Mirrors of another server's guilds, and members of other servers here: one suite for every store.

The other server is `OWNER`, with tables in memory; what it stores is mirrored in the store under test.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from openguild_proto.canonical.keys import encode_unpadded
from openguild_proto.canonical.receipts import chain_over, first_link
from openguild_proto.effects import Overloaded
from openguild_proto.effects.accounts import DescribeUser, FindUserByName, InsertUser
from openguild_proto.effects.channels import (
    DeleteChannel,
    FindChannelAccess,
    InsertChannel,
    ListUnread,
    ReadEvents,
    UpdateChannel,
)
from openguild_proto.effects.guilds import (
    FindGuildAccess,
    FindInvite,
    InsertGuild,
    InsertInvite,
    ListMembers,
    RemoveMember,
    RenameGuild,
    SetMemberRole,
)
from openguild_proto.effects.logs import ReadLogs
from openguild_proto.effects.messages import FindMessage, ReadMessages
from openguild_proto.effects.mirrors import (
    DropMirror,
    FindMirrorHead,
    JoinFromServer,
    KnowRemoteUser,
    MirrorEvents,
    MirrorOutcome,
    ReadSnapshot,
    RemoteJoin,
    StoreMirror,
)
from openguild_proto.effects.retention import PurgeDeleted
from openguild_proto.errors import ErrorCode, Refusal
from openguild_proto.mirror_records import MirroredEvent, MirroredMember, RemoteUser, Snapshot
from openguild_proto.records import Author, LogPart, LogPosition
from openguild_proto.schemas.events import parse_event
from openguild_runtime.storage.base import Storage
from openguild_runtime.storage.memory import MemoryStorage
from openguild_runtime.storage.postgres import deleted_logs
from tests.support.owner_server import HERE, NOW_MS, OWNER, Owner, new_id, numbers

pytestmark = pytest.mark.anyio


@pytest.fixture
def storage(kept_storage: Storage) -> Storage:
    return kept_storage


async def register(storage: Storage, name: str) -> str:
    user_id = new_id()
    await storage.perform(InsertUser(user_id, name, f"{name}{user_id}", "", NOW_MS))
    return user_id


async def mirrored(storage: Storage, owner: Owner) -> str:
    """Let a user of the store join, and mirror the guild. Return their id."""
    user_id = await register(storage, "bob")
    joined = owner.join(user_id)
    stored = await storage.perform(StoreMirror(OWNER, owner.guild_id, joined.snapshot, NOW_MS, joined=joined.member))
    assert stored
    return user_id


async def level(storage: Storage, owner: Owner, log_id: str, **more: Any) -> MirrorOutcome:
    """Deliver what is new in a log of the owner."""
    place = await storage.perform(FindMirrorHead(OWNER, log_id))
    after = place.sequence if place is not None else 0
    return await storage.perform(MirrorEvents(OWNER, owner.guild_id, log_id, 1, owner.news(log_id, after), **more))


async def test_a_mirror_begins_at_the_heads_of_its_guild(storage: Storage) -> None:
    owner = Owner()
    owner.post("before")
    user_id = await mirrored(storage, owner)
    guild = await storage.perform(FindGuildAccess(owner.guild_id, user_id))
    channel = await storage.perform(FindChannelAccess(owner.channel_id, user_id))
    assert guild is not None
    assert (guild.guild.name, guild.guild.origin, guild.role) == ("far away", OWNER, "member")
    assert guild.base == guild.place.sequence > 0
    assert channel is not None
    assert (channel.head, channel.channel.base_sequence, channel.channel.origin) == (
        1,
        1,
        OWNER,
    )
    assert await storage.perform(ReadEvents(log_id=owner.channel_id, limit=10, after=0)) == ()
    members = {line.user_id: line.origin for line in await storage.perform(ListMembers(owner.guild_id))}
    assert members == {owner.user_id: OWNER, user_id: None}
    profile = await storage.perform(DescribeUser(user_id))
    assert profile is not None
    assert [line.name for line in profile.guilds] == ["far away"]
    news = await storage.perform(ReadLogs(parts=(LogPart(user_id, 0, 10),)))
    assert [parse_event(event.wire).event_type for event in news] == ["guild.joined"]


async def test_events_come_once_and_in_order(storage: Storage) -> None:
    owner = Owner()
    user_id = await mirrored(storage, owner)
    wires = [owner.post(f"message {number}").wire for number in range(5)]
    news = owner.news(owner.channel_id, 0)

    async def take(events: tuple[MirroredEvent, ...]) -> MirrorOutcome:
        return await storage.perform(MirrorEvents(OWNER, owner.guild_id, owner.channel_id, 1, events))

    gap = await take(news[1:])
    assert (gap.status, gap.events, gap.place and gap.place.sequence) == ("ok", (), 0)
    first = await take(news[:3])
    assert [event.sequence for event in first.events] == [1, 2, 3]
    rest = await take(news)
    assert [event.sequence for event in rest.events] == [4, 5]
    assert (await take(news)).events == ()
    stored = await storage.perform(ReadEvents(log_id=owner.channel_id, limit=10, after=0))
    assert stored is not None
    assert [event.wire for event in stored] == wires
    (unread,) = await storage.perform(ListUnread(user_id, 10))
    assert unread.unread == 5


async def test_own_messages_are_not_unread(storage: Storage) -> None:
    owner = Owner()
    user_id = await mirrored(storage, owner)
    owner.post("hers")
    owner.post("mine", sender=user_id, home=HERE)
    await level(storage, owner, owner.channel_id)
    (unread,) = await storage.perform(ListUnread(user_id, 10))
    assert unread.unread == 1


async def test_changes_are_folded_as_at_the_owner(storage: Storage) -> None:
    owner = Owner()
    user_id = await mirrored(storage, owner)
    message = owner.post("one")
    owner.append("message.edited", {"target": message.event_id, "content": "two"})
    owner.append(
        "reaction.added", {"target": message.event_id, "emoji": "\N{WAVING HAND SIGN}"}, sender=user_id, home=HERE
    )
    owner.append("message.pinned", {"target": message.event_id})
    owner.post("reply", sender=user_id, home=HERE)
    owner.append("message", {"content": "answer", "reply_to": message.event_id})
    await level(storage, owner, owner.channel_id)
    for reader in (user_id, owner.user_id):
        here = await storage.perform(ReadMessages(owner.channel_id, reader, 10))
        there = owner.do(ReadMessages(owner.channel_id, reader, 10))
        assert here == there


async def test_a_redaction_takes_the_text_from_the_mirror(storage: Storage) -> None:
    owner = Owner()
    await mirrored(storage, owner)
    message = owner.post("secret one")
    owner.append("message.edited", {"target": message.event_id, "content": "secret two"})
    await level(storage, owner, owner.channel_id)
    owner.append("message.redacted", {"target": message.event_id})
    await level(storage, owner, owner.channel_id)
    stored = await storage.perform(ReadEvents(log_id=owner.channel_id, limit=10, after=0))
    assert stored is not None
    assert not any(b"secret" in event.wire for event in stored)
    here = await storage.perform(FindMessage(owner.channel_id, owner.user_id, message.event_id))
    assert here == owner.do(FindMessage(owner.channel_id, owner.user_id, message.event_id))


async def test_what_was_redacted_before_it_came_is_redacted(storage: Storage) -> None:
    owner = Owner()
    await mirrored(storage, owner)
    first = owner.post("first")
    message = owner.append("message", {"content": "secret", "reply_to": first.event_id})
    owner.append("message.edited", {"target": message.event_id, "content": "secret two"})
    owner.append("message.redacted", {"target": message.event_id})
    await level(storage, owner, owner.channel_id)
    here = await storage.perform(ReadMessages(owner.channel_id, owner.user_id, 10))
    there = owner.do(ReadMessages(owner.channel_id, owner.user_id, 10))
    assert [(m.state.redacted_by, m.state.replies, m.wire) for m in here.messages] == [
        (m.state.redacted_by, m.state.replies, m.wire) for m in there.messages
    ]


async def test_an_edit_of_a_message_that_is_not_here_is_redacted_with_it(storage: Storage) -> None:
    owner = Owner()
    message = owner.post("before")
    await mirrored(storage, owner)
    owner.append("message.edited", {"target": message.event_id, "content": "secret"})
    await level(storage, owner, owner.channel_id)
    owner.append("message.redacted", {"target": message.event_id})
    await level(storage, owner, owner.channel_id)
    stored = await storage.perform(ReadEvents(log_id=owner.channel_id, limit=10, after=0))
    assert stored is not None
    assert [event.sequence for event in stored] == [2, 3]
    assert not any(b"secret" in event.wire for event in stored)


async def test_the_guild_follows_its_owner(storage: Storage) -> None:
    owner = Owner()
    user_id = await mirrored(storage, owner)
    other, made, gone = new_id(), new_id(), new_id()
    owner.do(RenameGuild(owner.author, owner.guild_id, "nearer", NOW_MS))
    owner.do(InsertChannel(owner.author, made, owner.guild_id, "made", NOW_MS, topic="t", position=3))
    owner.do(UpdateChannel(owner.author, owner.channel_id, NOW_MS, name="renamed"))
    owner.do(InsertChannel(owner.author, gone, owner.guild_id, "gone", NOW_MS))
    owner.do(DeleteChannel(owner.author, gone, NOW_MS))
    owner.join(other, "carol")  # says that she is of this server, which knows nothing of it
    owner.do(SetMemberRole(owner.author, owner.guild_id, user_id, "moderator", NOW_MS))
    assert (await level(storage, owner, owner.guild_id)).status == "ok"
    access = await storage.perform(FindGuildAccess(owner.guild_id, user_id))
    assert access is not None
    assert (access.guild.name, access.role) == ("nearer", "moderator")
    assert access.place == owner.do(FindGuildAccess(owner.guild_id, user_id)).place
    new = await storage.perform(FindChannelAccess(made, user_id))
    assert new is not None
    assert (new.channel.name, new.channel.topic, new.channel.position) == ("made", "t", 3)
    assert (await storage.perform(FindChannelAccess(made, owner.user_id))).channel_role == "moderator"
    assert await storage.perform(FindChannelAccess(gone, user_id)) is None
    assert {line.user_id for line in await storage.perform(ListMembers(owner.guild_id))} == {owner.user_id, user_id}


async def test_the_mirror_goes_with_its_last_member(storage: Storage) -> None:
    owner = Owner()
    user_id = await mirrored(storage, owner)
    owner.post("hello")
    await level(storage, owner, owner.channel_id)
    owner.do(RemoveMember(owner.author, owner.guild_id, user_id, NOW_MS, reason="spam"))
    outcome = await level(storage, owner, owner.guild_id)
    assert outcome.ended
    assert await storage.perform(FindGuildAccess(owner.guild_id, user_id)) is None
    assert await storage.perform(FindChannelAccess(owner.channel_id, user_id)) is None
    assert await storage.perform(ReadEvents(log_id=owner.channel_id, limit=10, after=0)) is None
    news = await storage.perform(ReadLogs(parts=(LogPart(user_id, 0, 10),)))
    left = json.loads(news[-1].wire)
    assert (left["event_type"], left["content"]["removed"], left["content"]["reason"]) == ("guild.left", True, "spam")
    assert (await level(storage, owner, owner.guild_id)).status == "unknown"


async def test_another_epoch_begins_the_mirror_anew(storage: Storage) -> None:
    owner = Owner()
    user_id = await mirrored(storage, owner)
    owner.post("lost")
    await level(storage, owner, owner.channel_id)
    events = owner.news(owner.channel_id, 0)
    told = await storage.perform(MirrorEvents(OWNER, owner.guild_id, owner.channel_id, 7, events))
    assert told.status == "epoch"
    snapshot: Snapshot = owner.do(ReadSnapshot(HERE, owner.guild_id))
    renewed = Snapshot(
        snapshot.guild_id, "restored", snapshot.created_at_ms, 7, 9, members=snapshot.members,
        channels=[type(line)(line.channel_id, line.name, line.created_at_ms, 7, 5, 4) for line in snapshot.channels],
    )  # fmt: skip
    assert await storage.perform(StoreMirror(OWNER, owner.guild_id, renewed, NOW_MS))
    assert await storage.perform(FindMirrorHead(OWNER, owner.channel_id)) == LogPosition(owner.channel_id, 7, 5)
    assert await storage.perform(ReadEvents(log_id=owner.channel_id, limit=10, after=0)) == ()
    access = await storage.perform(FindGuildAccess(owner.guild_id, user_id))
    assert access is not None
    assert (access.guild.name, access.role, access.place.sequence) == ("restored", "member", 9)
    (unread,) = await storage.perform(ListUnread(user_id, 10))
    assert unread.unread == 0


async def test_a_fork_of_the_chain_is_refused(storage: Storage) -> None:
    owner = Owner()
    user_id = await register(storage, "bob")
    joined = owner.join(user_id)
    begin = first_link(owner.channel_id, 1, 0)
    assert joined.snapshot is not None
    channels = [
        type(line)(line.channel_id, line.name, line.created_at_ms, 1, 0, 0, chain=encode_unpadded(begin))
        for line in joined.snapshot.channels
    ]
    snapshot = Snapshot(
        owner.guild_id,
        "far away",
        NOW_MS,
        1,
        joined.snapshot.sequence,
        members=joined.snapshot.members,
        channels=channels,
    )
    await storage.perform(StoreMirror(OWNER, owner.guild_id, snapshot, NOW_MS, joined=joined.member))
    owner.post("one")
    two = owner.post("two")
    news = owner.news(owner.channel_id, 0)
    good = chain_over(begin, owner.channel_id, 1, [(event.sequence, event.event_id) for event in news])
    other = chain_over(begin, owner.channel_id, 1, [(1, two.event_id)])
    refused = await storage.perform(MirrorEvents(OWNER, owner.guild_id, owner.channel_id, 1, news, chain=other))
    assert (refused.status, refused.events) == ("refused", ())
    taken = await storage.perform(MirrorEvents(OWNER, owner.guild_id, owner.channel_id, 1, news, chain=good))
    assert len(taken.events) == 2
    again = msg_again(news[0], 3)
    repeated = await storage.perform(MirrorEvents(OWNER, owner.guild_id, owner.channel_id, 1, (again,)))
    assert repeated.status == "refused"


async def test_a_mirror_that_has_begun_anew_stays(storage: Storage) -> None:
    owner = Owner()
    user_id = await mirrored(storage, owner)
    place = await storage.perform(FindMirrorHead(OWNER, owner.guild_id))
    owner.join(await register(storage, "dave"))
    joined = owner.join(await register(storage, "carol"))
    await storage.perform(StoreMirror(OWNER, owner.guild_id, joined.snapshot, NOW_MS, joined=joined.member))
    assert await storage.perform(DropMirror(OWNER, owner.guild_id, NOW_MS, place)) is False
    assert await storage.perform(FindGuildAccess(owner.guild_id, user_id)) is not None
    place = await storage.perform(FindMirrorHead(OWNER, owner.guild_id))
    for _ in range(2):
        assert await storage.perform(DropMirror(OWNER, owner.guild_id, NOW_MS, place)) is True
    assert await storage.perform(FindGuildAccess(owner.guild_id, user_id)) is None


async def test_a_mirror_comes_back_when_nothing_is_left_of_it(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a large one leaves behind goes a little at a time."""
    owner = Owner()
    monkeypatch.setattr(deleted_logs, "MAX_ROWS_AT_ONCE", -1)
    user_id = await mirrored(storage, owner)
    await storage.perform(DropMirror(OWNER, owner.guild_id, NOW_MS))
    assert await storage.perform(FindGuildAccess(owner.guild_id, user_id)) is None
    if not isinstance(storage, MemoryStorage):
        with pytest.raises(Overloaded):
            await mirrored(storage, owner)
    while await storage.perform(PurgeDeleted(100)):
        pass
    assert await storage.perform(FindGuildAccess(owner.guild_id, await mirrored(storage, owner))) is not None


def msg_again(event: MirroredEvent, sequence: int) -> MirroredEvent:
    return MirroredEvent(sequence, event.event_id, event.event_type, event.sender_id, event.wire, event.at_ms)


async def test_a_server_cannot_take_what_belongs_to_another(storage: Storage) -> None:
    owner, thief = Owner(), "thief.example"
    user_id = await mirrored(storage, owner)
    snapshot: Snapshot = owner.do(ReadSnapshot(HERE, owner.guild_id))
    with pytest.raises(Refusal) as taken:
        await storage.perform(StoreMirror(thief, owner.guild_id, snapshot, NOW_MS))
    assert taken.value.code is ErrorCode.ID_TAKEN
    moved = Snapshot(new_id(), "theirs", NOW_MS, 1, 3, members=[], channels=snapshot.channels)
    with pytest.raises(Refusal) as taken:
        await storage.perform(StoreMirror(thief, moved.guild_id, moved, NOW_MS))
    assert taken.value.code is ErrorCode.ID_TAKEN
    assert await storage.perform(FindMirrorHead(thief, owner.channel_id)) is None
    events = (msg_again(owner.news(owner.guild_id, 0)[0], 1),)
    assert (await storage.perform(MirrorEvents(thief, owner.guild_id, owner.channel_id, 1, events))).status == "unknown"
    await storage.perform(DropMirror(thief, owner.guild_id, NOW_MS))
    assert await storage.perform(FindGuildAccess(owner.guild_id, user_id)) is not None
    claimed = MirroredMember(user_id, "bob", "owner", NOW_MS, None, None)
    false = Snapshot(new_id(), "claims bob", NOW_MS, 1, 1, members=[claimed], channels=[])
    await storage.perform(StoreMirror(thief, false.guild_id, false, NOW_MS))
    assert await storage.perform(ListMembers(false.guild_id)) == ()


async def test_users_of_other_servers_are_members_and_cannot_log_in(storage: Storage) -> None:
    own, guild_id, remote = await register(storage, "alice"), new_id(), new_id()
    author = Author(own)
    await storage.perform(InsertGuild(author, guild_id, "here", NOW_MS))
    code = f"code{next(numbers)}"
    await storage.perform(InsertInvite(author, code, guild_id, 1, None, NOW_MS))
    effect = JoinFromServer("peer.example", RemoteUser(remote, "bob", "Bob"), code, "member", NOW_MS, 100, False)
    joined = await storage.perform(effect)
    assert isinstance(joined, RemoteJoin)
    assert joined.snapshot is not None
    assert {(line.user_id, line.origin) for line in joined.snapshot.members} == {(own, None), (remote, "peer.example")}
    assert joined.place.sequence == joined.snapshot.sequence
    again = await storage.perform(effect)
    assert isinstance(again, RemoteJoin)
    assert again.snapshot is None
    assert again.place == joined.place
    invite = await storage.perform(FindInvite(code))
    assert invite is not None
    assert invite.uses == 1
    assert await storage.perform(FindUserByName("bob")) is None
    with pytest.raises(Refusal) as taken:
        await storage.perform(KnowRemoteUser("other.example", RemoteUser(remote, "bob"), NOW_MS))
    assert taken.value.code is ErrorCode.ID_TAKEN
    with pytest.raises(Refusal) as taken:
        await storage.perform(KnowRemoteUser("peer.example", RemoteUser(own, "alice"), NOW_MS))
    assert taken.value.code is ErrorCode.ID_TAKEN
    await storage.perform(KnowRemoteUser("peer.example", RemoteUser(remote, "robert", None), NOW_MS))
    names = {line.user_id: line.username for line in await storage.perform(ListMembers(guild_id))}
    assert names[remote] == "robert"
    assert (
        await storage.perform(JoinFromServer("x.example", RemoteUser(new_id(), "y"), "none", "member", 1, 9, True))
        is None
    )
