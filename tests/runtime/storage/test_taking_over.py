"""Guilds of other servers that are taken over: one suite for every store (PROTOCOL 16.10)."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from openguild_proto.effects.channels import (
    Appended,
    FindChannelAccess,
    FindPosted,
    ListUnread,
    MarkRead,
)
from openguild_proto.effects.deliveries import FindBehind
from openguild_proto.effects.guilds import (
    FindGuildAccess,
    FindInvite,
)
from openguild_proto.effects.handovers import (
    AbsorbHistory,
    BeginMove,
    FindCopies,
    FindOwnership,
    FollowHandover,
    ListHandovers,
    StageHistory,
    TakeGuild,
)
from openguild_proto.effects.logs import FindLogHead
from openguild_proto.effects.messages import ReadMessages
from openguild_proto.effects.mirrors import (
    FORKED,
    NOT_OURS,
    MirrorEvents,
    StoreMirror,
)
from openguild_proto.effects.roles import GrantGuildRole
from openguild_proto.mirror_records import Handover, HistoricEvent, TransferredInvite, TransferredLog
from openguild_proto.records import Author, MemberChange
from openguild_runtime.storage.base import Storage
from tests.support.deeds import add_user, append, new_id
from tests.support.owner_server import HERE, NOW_MS, OWNER, Owner

pytestmark = pytest.mark.anyio
ELSEWHERE = "elsewhere.example"
EPOCH = 7_000_000


@pytest.fixture
def storage(kept_storage: Storage) -> Storage:
    return kept_storage


async def mirrored(storage: Storage, owner: Owner) -> str:
    user_id = await add_user(storage)
    joined = owner.join(user_id)
    assert await storage.perform(StoreMirror(OWNER, owner.guild_id, joined.snapshot, NOW_MS, joined=joined.member))
    return user_id


async def level(storage: Storage, owner: Owner, log_id: str) -> None:
    place = await storage.perform(FindLogHead(log_id))
    assert place is not None
    outcome = await storage.perform(MirrorEvents(OWNER, owner.guild_id, log_id, 1, owner.news(log_id, place.sequence)))
    assert outcome.status == "ok"


def history(owner: Owner, log_id: str, after: int = 0, size: int = 100) -> tuple[HistoricEvent, ...]:
    return tuple(
        HistoricEvent(event, f"nonce {event.sequence}", bytes([event.sequence]) * 32)
        for event in owner.news(log_id, after, size)
    )


async def copied(storage: Storage, owner: Owner, log_ids: Sequence[str] | None = None) -> None:
    for log_id in log_ids or (owner.guild_id, owner.channel_id):
        assert await storage.perform(StageHistory(OWNER, log_id, history(owner, log_id))) is None
        await storage.perform(AbsorbHistory(OWNER, log_id))


def handover(of: Owner, /, **changed: object) -> Handover:
    return replace(Handover("move", of.guild_id, OWNER, HERE, 2, NOW_MS, NOW_MS + 1_000), **changed)


async def heads(storage: Storage, owner: Owner) -> tuple[TransferredLog, ...]:
    places = [await storage.perform(FindLogHead(log_id)) for log_id in (owner.guild_id, owner.channel_id)]
    return tuple(TransferredLog(place.log_id, place.epoch, place.sequence) for place in places if place is not None)


def busy(owner: Owner) -> list[str]:
    """Ids of messages to which everything has happened."""
    first, second, third = (owner.post(text).event_id for text in ("first", "second", "third"))
    owner.append("message.edited", {"target": first, "content": "first, edited"})
    owner.append("reaction.added", {"target": first, "emoji": "\N{THUMBS UP SIGN}"})
    owner.append("message.pinned", {"target": second})
    owner.append("message", {"content": "an answer", "reply_to": second})
    owner.append("message.redacted", {"target": third})
    return [first, second, third]


async def test_a_mirror_with_its_history_shows_what_the_owner_shows(storage: Storage) -> None:
    owner = Owner()
    first, second, _ = busy(owner)
    user_id = await mirrored(storage, owner)
    owner.append("message.edited", {"target": first, "content": "first, edited again"})
    owner.append("message.unpinned", {"target": second})
    mine = owner.post("mine", sender=user_id, home=HERE)
    await level(storage, owner, owner.channel_id)
    (unread,) = await storage.perform(ListUnread(user_id, 10))
    (log, channel) = await storage.perform(FindCopies(OWNER, owner.guild_id)) or ()
    assert (channel.base, channel.copied, channel.head, log.copied) == (8, 0, 11, 0)
    await copied(storage, owner)
    (log, channel) = await storage.perform(FindCopies(OWNER, owner.guild_id)) or ()
    assert (channel.base, channel.copied, channel.head) == (0, 11, 11)
    assert (log.base, log.copied) == (0, log.head)
    question = ReadMessages(channel_id=owner.channel_id, reader_id=user_id, limit=50)
    assert await storage.perform(question) == owner.do(question)
    assert await storage.perform(ListUnread(user_id, 10)) == (unread,)
    found = await storage.perform(FindPosted(owner.channel_id, user_id, f"nonce {mine.sequence}"))
    assert found is not None
    assert (found.event.event_id, found.fingerprint) == (mine.event_id, bytes([mine.sequence]) * 32)
    owner.append("message.redacted", {"target": first})
    await level(storage, owner, owner.channel_id)
    assert await storage.perform(question) == owner.do(question)


async def test_history_comes_in_order_and_once(storage: Storage) -> None:
    owner = Owner()
    busy(owner)
    await mirrored(storage, owner)
    lines = history(owner, owner.channel_id)
    for part in (lines[3:], lines[:3], lines[:3], lines[2:6], lines[7:]):
        assert await storage.perform(StageHistory(OWNER, owner.channel_id, part)) is None
    _, channel = await storage.perform(FindCopies(OWNER, owner.guild_id)) or ()
    assert channel.copied == 6, "the first part and the last one begin behind a hole"
    await storage.perform(AbsorbHistory(OWNER, owner.channel_id))
    _, channel = await storage.perform(FindCopies(OWNER, owner.guild_id)) or ()
    assert (channel.base, channel.copied) == (8, 6), "it reaches not up to the base"


async def test_history_that_differs_is_refused(storage: Storage) -> None:
    owner = Owner()
    owner.post("before")
    user_id = await mirrored(storage, owner)
    owner.post("after")
    await level(storage, owner, owner.channel_id)
    one, two = history(owner, owner.channel_id)
    other = HistoricEvent(replace(two.event, event_id="$other"), None, b"")
    assert await storage.perform(StageHistory(OWNER, owner.channel_id, (one, other))) == FORKED
    forged = HistoricEvent(replace(one.event, sender_id=user_id), None, b"")
    assert await storage.perform(StageHistory(OWNER, owner.channel_id, (forged,))) == NOT_OURS
    assert await storage.perform(StageHistory(ELSEWHERE, owner.channel_id, (one,))) is None
    _, channel = await storage.perform(FindCopies(OWNER, owner.guild_id)) or ()
    assert channel.copied == 0
    assert await storage.perform(FindCopies(ELSEWHERE, owner.guild_id)) is None


async def test_what_is_redacted_while_it_is_copied_is_copied_again(storage: Storage) -> None:
    owner = Owner()
    message = owner.post("to be taken back")
    owner.post("stays")
    await mirrored(storage, owner)
    assert await storage.perform(StageHistory(OWNER, owner.channel_id, history(owner, owner.channel_id))) is None
    owner.append("message.redacted", {"target": message.event_id})
    await level(storage, owner, owner.channel_id)
    _, channel = await storage.perform(FindCopies(OWNER, owner.guild_id)) or ()
    assert channel.copied == 0


async def test_a_guild_is_taken_when_it_is_whole(storage: Storage) -> None:
    owner = Owner()
    busy(owner)
    user_id = await mirrored(storage, owner)
    taking = TakeGuild(
        handover(owner), EPOCH, await heads(storage, owner),
        (TransferredInvite("moved" + owner.code, owner.user_id, NOW_MS, uses=2), TransferredInvite("of nobody", new_id(), NOW_MS)),
        NOW_MS,
    )  # fmt: skip
    assert not await storage.perform(taking)
    await copied(storage, owner, [owner.channel_id])
    assert not await storage.perform(taking)
    await copied(storage, owner)
    assert not await storage.perform(replace(taking, logs=taking.logs[:1] if taking.logs else ()))
    assert not await storage.perform(replace(taking, handover=handover(owner, term=3)))
    assert not await storage.perform(replace(taking, handover=handover(owner, owner=ELSEWHERE)))
    assert await storage.perform(taking)
    assert await storage.perform(taking), "it is repeated where an answer is lost"
    guild = await storage.perform(FindGuildAccess(owner.guild_id, user_id))
    assert guild is not None
    assert (guild.guild.origin, guild.place.epoch, guild.base) == (None, EPOCH, 0)
    ownership = await storage.perform(FindOwnership(owner.guild_id))
    assert ownership is not None
    assert (ownership.origin, ownership.term, ownership.has_members) == (None, 2, True)
    invite = await storage.perform(FindInvite("moved" + owner.code))
    assert invite is not None
    assert (invite.uses, invite.created_by, invite.origin) == (2, owner.user_id, None)
    assert await storage.perform(FindInvite("of nobody")) is None
    access = await storage.perform(FindChannelAccess(owner.channel_id, user_id))
    assert access is not None
    assert (access.channel.origin, access.channel.epoch, access.channel.base_sequence) == (None, EPOCH, None)
    behind = await storage.perform(FindBehind(OWNER, 10))
    ours = [(log.log_id, log.head.epoch, log.epoch) for log in behind if log.guild_id == owner.guild_id]
    assert ours == [(owner.guild_id, EPOCH, 1), (owner.channel_id, EPOCH, 1)]
    posted = await storage.perform(append(owner.channel_id, user_id, author=Author(user_id)))
    assert isinstance(posted, Appended)
    assert posted.event.sequence == access.head + 1
    assert await storage.perform(ListHandovers(owner.guild_id)) == (taking.handover,)


async def test_a_lost_guild_goes_on_with_what_is_here(storage: Storage) -> None:
    owner = Owner()
    busy(owner)
    user_id = await mirrored(storage, owner)
    statement = handover(owner, kind="succession", serial=5)
    former = handover(owner, owner=ELSEWHERE, to=OWNER, term=1)
    assert await storage.perform(TakeGuild(statement, EPOCH, None, (), NOW_MS, (former,)))
    assert await storage.perform(ListHandovers(owner.guild_id)) == (former, statement)
    access = await storage.perform(FindChannelAccess(owner.channel_id, user_id))
    guild = await storage.perform(FindGuildAccess(owner.guild_id, user_id))
    assert access is not None
    assert guild is not None
    assert (access.channel.origin, access.channel.base_sequence) == (None, 8)
    assert guild.base > 0
    posted = await storage.perform(append(owner.channel_id, user_id, author=Author(user_id)))
    assert isinstance(posted, Appended)
    assert posted.event.sequence == 9
    assert await storage.perform(BeginMove(owner.guild_id, OWNER, NOW_MS)) is not None, "it has not all to give"


async def test_a_mirror_follows_one_hand_over_of_a_term(storage: Storage) -> None:
    owner = Owner()
    user_id = await mirrored(storage, owner)
    good = handover(owner, to=ELSEWHERE)
    for bad in (
        handover(owner),
        replace(good, term=3),
        replace(good, owner=ELSEWHERE),
        replace(good, guild_id=new_id()),
    ):
        assert not await storage.perform(FollowHandover(bad))
    assert await storage.perform(FollowHandover(good))
    assert not await storage.perform(FollowHandover(good))
    guild = await storage.perform(FindGuildAccess(owner.guild_id, user_id))
    channel = await storage.perform(FindChannelAccess(owner.channel_id, user_id))
    assert guild is not None
    assert channel is not None
    assert guild.guild.origin == channel.channel.origin == ELSEWHERE


async def test_messages_that_are_not_here_are_unread_to_nobody(storage: Storage) -> None:
    owner, late = Owner(), await add_user(storage)
    busy(owner)
    await mirrored(storage, owner)
    owner.post("the only one that is here")
    await level(storage, owner, owner.channel_id)
    assert await storage.perform(TakeGuild(handover(owner, kind="succession"), EPOCH, None, (), NOW_MS))
    assert await storage.perform(GrantGuildRole(owner.guild_id, late, "member", NOW_MS)) is MemberChange.DONE
    (unread,) = await storage.perform(ListUnread(late, 10))
    assert (unread.last_read_sequence, unread.latest_sequence, unread.unread) == (0, 9, 1)
    for asked, position, count in ((3, 3, 1), (2, 3, 1), (8, 8, 1), (9, 9, 0)):
        state = await storage.perform(MarkRead(Author(late), owner.channel_id, asked, NOW_MS))
        assert (state.last_read_sequence, state.unread) == (position, count)
        (unread,) = await storage.perform(ListUnread(late, 10))
        assert (unread.last_read_sequence, unread.unread) == (position, count)
