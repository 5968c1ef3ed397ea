"""Guilds of this server that are handed over to another one: one suite for every store (PROTOCOL 16.10)."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from openguild_proto.effects.base import StorageEffect
from openguild_proto.effects.channels import (
    DeleteChannel,
    FindPosted,
    InsertChannel,
    MarkRead,
    UpdateChannel,
)
from openguild_proto.effects.deliveries import FindMirrored
from openguild_proto.effects.guilds import (
    AcceptInvite,
    DeleteGuild,
    FindGuildAccess,
    FindInvite,
    InsertInvite,
    ListInvites,
    RemoveMember,
    RenameGuild,
    SetMemberRole,
)
from openguild_proto.effects.handovers import (
    AbsorbHistory,
    BeginMove,
    EndMove,
    FindOwnership,
    FindSuccession,
    FollowHandover,
    HandOver,
    ListHandovers,
    ListMoves,
    NoteMove,
    ReadLogHistory,
    ReadTransferred,
    SetSuccessor,
    StageHistory,
    TakeGuild,
)
from openguild_proto.effects.logs import FindLogHead
from openguild_proto.effects.mirrors import (
    DropMirror,
    JoinFromServer,
    MirrorEvents,
    ReadSnapshot,
    RemoteJoin,
    StoreMirror,
)
from openguild_proto.effects.roles import GrantServerRole, RevokeServerRole
from openguild_proto.errors import ErrorCode, Refusal
from openguild_proto.mirror_records import (
    Handover,
    HistoricEvent,
    MirroredEvent,
    MirroredMember,
    RemoteUser,
    Snapshot,
    TransferredInvite,
    TransferredLog,
)
from openguild_proto.policy.invites import invite_id
from openguild_proto.policy.moves import BEHIND, NO_GUILD, NO_MEMBER, NOT_MOVING
from openguild_proto.records import Author, LogPosition, Redact
from openguild_proto.schemas.events import parse_event
from openguild_proto.schemas.log_contents import InviteDeletedContent
from openguild_proto.schemas.log_writer import LogWriter
from openguild_runtime.storage.base import Storage
from tests.support.deeds import add_channel, add_guild, add_user, append, new_id
from tests.support.owner_server import HERE, NOW_MS

pytestmark = pytest.mark.anyio
ELSEWHERE = "elsewhere.example"


@pytest.fixture
def storage(kept_storage: Storage) -> Storage:
    return kept_storage


class Ours:
    """A guild of the store's server, with a channel, of which a user of another server is a member."""

    def __init__(self, owner: str, guild: str, channel: str, code: str, remote: str, peer: str) -> None:
        self.owner, self.guild, self.channel, self.code, self.remote, self.peer = (
            owner,
            guild,
            channel,
            code,
            remote,
            peer,
        )
        self.author = Author(owner)

    def handover(self, **changed: object) -> Handover:
        return replace(Handover("move", self.guild, HERE, self.peer, 2, NOW_MS, NOW_MS + 1_000), **changed)


async def ours(storage: Storage) -> Ours:
    owner = await add_user(storage)
    guild = await add_guild(storage, owner)
    channel = await add_channel(storage, guild, owner)
    code, remote, peer = f"c{new_id()}", new_id(), f"p{new_id()}.example"
    await storage.perform(InsertInvite(Author(owner), code, guild, None, None, NOW_MS))
    made = Ours(owner, guild, channel, code, remote, peer)
    assert isinstance(await join(storage, made, peer, remote), RemoteJoin)
    return made


async def join(storage: Storage, of: Ours, peer: str, user_id: str) -> object:
    user = RemoteUser(user_id, "remote")
    return await storage.perform(JoinFromServer(peer, user, of.code, "member", NOW_MS, 10, wants_snapshot=True))


async def handed_over(storage: Storage) -> Ours:
    made = await ours(storage)
    await storage.perform(append(made.channel, made.owner, author=made.author, nonce="n"))
    assert await storage.perform(BeginMove(made.guild, made.peer, NOW_MS)) is None
    assert await storage.perform(HandOver(made.handover(), await head(storage, made))) is None
    return made


async def head(storage: Storage, made: Ours) -> int:
    place = await storage.perform(FindLogHead(made.guild))
    assert place is not None
    return place.sequence


async def test_a_guild_is_handed_over_once(storage: Storage) -> None:
    made = await ours(storage)
    level = await head(storage, made)
    assert await storage.perform(HandOver(made.handover(), level)) == NOT_MOVING
    assert await storage.perform(BeginMove(made.guild, ELSEWHERE, NOW_MS)) == NO_MEMBER
    assert await storage.perform(BeginMove(new_id(), made.peer, NOW_MS)) == NO_GUILD
    assert await storage.perform(BeginMove(made.guild, made.peer, NOW_MS)) is None
    await storage.perform(NoteMove(made.guild, "copying"))
    assert await storage.perform(HandOver(made.handover(to=ELSEWHERE), level)) == NOT_MOVING
    assert await storage.perform(HandOver(made.handover(term=3), level)) == NO_GUILD
    await storage.perform(RenameGuild(made.author, made.guild, "renamed", NOW_MS))
    assert await storage.perform(HandOver(made.handover(), level)) == BEHIND
    assert await storage.perform(HandOver(made.handover(), level + 1)) is None
    assert await storage.perform(HandOver(made.handover(), level + 1)) == NO_GUILD
    (move,) = [move for move in await storage.perform(ListMoves()) if move.guild_id == made.guild]
    assert (move.to, move.handover, move.note) == (made.peer, made.handover(), "copying")
    assert not await storage.perform(EndMove(made.guild, done=False))
    assert await storage.perform(EndMove(made.guild, done=True))
    assert await storage.perform(FindMirrored(made.peer, made.guild)) is None
    assert await storage.perform(ReadSnapshot(made.peer, made.guild)) is None


async def test_nothing_is_written_to_a_guild_that_was_handed_over(storage: Storage) -> None:
    made = await handed_over(storage)
    reader = await add_user(storage)
    before = [await storage.perform(FindLogHead(log_id)) for log_id in (made.guild, made.channel)]
    posted = await storage.perform(FindPosted(made.channel, made.owner, "n"))
    assert posted is not None
    message = posted.event
    effects: tuple[StorageEffect[object], ...] = (
        append(made.channel, made.owner, author=made.author),
        replace(append(made.channel, made.owner, author=made.author), change=Redact(message.event_id, None)),
        RenameGuild(made.author, made.guild, "renamed", NOW_MS),
        DeleteGuild(made.author, made.guild),
        InsertChannel(made.author, new_id(), made.guild, "more", NOW_MS),
        UpdateChannel(made.author, made.channel, NOW_MS, name="renamed"),
        DeleteChannel(made.author, made.channel, NOW_MS),
        InsertInvite(made.author, f"c{new_id()}", made.guild, None, None, NOW_MS),
        AcceptInvite(Author(reader), made.code, "member", NOW_MS, 10),
        SetMemberRole(made.author, made.guild, made.remote, "admin", NOW_MS),
        RemoveMember(made.author, made.guild, made.remote, NOW_MS),
        RemoveMember(Author(made.remote), made.guild, made.remote, NOW_MS),
        SetSuccessor(made.author, made.guild, None, 5, NOW_MS),
    )
    for effect in effects:
        with pytest.raises(Refusal) as refused:
            await storage.perform(effect)
        assert refused.value.code is ErrorCode.GUILD_OFFLINE, effect
    with pytest.raises(Refusal) as refused:
        await join(storage, made, ELSEWHERE, new_id())
    assert refused.value.code is ErrorCode.GUILD_OFFLINE
    assert [await storage.perform(FindLogHead(log_id)) for log_id in (made.guild, made.channel)] == before
    state = await storage.perform(MarkRead(made.author, made.channel, None, NOW_MS))
    assert state.unread == 0, "where they have read is theirs"


async def test_invites_lead_to_the_new_owner_until_it_deletes_them(storage: Storage) -> None:
    made, gone = await ours(storage), f"c{new_id()}"
    await storage.perform(InsertInvite(made.author, gone, made.guild, None, None, NOW_MS))
    assert await storage.perform(BeginMove(made.guild, made.peer, NOW_MS)) is None
    level = await head(storage, made)
    assert await storage.perform(HandOver(made.handover(), level)) is None
    place, content = LogPosition(made.guild, 1, level + 1), InviteDeletedContent(invite_id(gone))
    built = LogWriter(made.peer).write(place, content, sender=made.owner, now_ms=NOW_MS)
    event = MirroredEvent(level + 1, built.event_id, content.event_type, made.owner, built.wire, NOW_MS)
    outcome = await storage.perform(MirrorEvents(made.peer, made.guild, made.guild, 1, (event,)))
    assert outcome.status == "ok"
    assert await storage.perform(FindInvite(gone)) is None
    invite = await storage.perform(FindInvite(made.code))
    assert invite is not None
    assert invite.origin == made.peer


async def test_a_guild_that_is_taken_back_has_the_invites_that_are_passed(storage: Storage) -> None:
    made, gone = await ours(storage), f"c{new_id()}"
    await storage.perform(InsertInvite(made.author, gone, made.guild, None, None, NOW_MS))
    assert await storage.perform(BeginMove(made.guild, made.peer, NOW_MS)) is None
    assert await storage.perform(HandOver(made.handover(), await head(storage, made))) is None
    heads = []
    for log_id in (made.guild, made.channel):
        read = await storage.perform(ReadLogHistory(made.peer, log_id, 0, 100))
        assert read is not None
        heads.append(TransferredLog(log_id, read.epoch, read.head))
        events = [(line, parse_event(line.wire)) for line in read.lines]
        lines = [
            MirroredEvent(line.sequence, event.event_id, event.event_type, event.sender, line.wire, line.at_ms)
            for line, event in events
        ]
        staged = tuple(HistoricEvent(line, None, b"") for line in lines)
        assert await storage.perform(StageHistory(made.peer, log_id, staged)) is None
        await storage.perform(AbsorbHistory(made.peer, log_id))
    back = made.handover(owner=made.peer, to=HERE, term=3)
    passed = (TransferredInvite(made.code, made.owner, NOW_MS, uses=5),)
    assert await storage.perform(TakeGuild(back, 7_000_000, tuple(heads), passed, NOW_MS))
    assert await storage.perform(FindInvite(gone)) is None, "it was deleted elsewhere"
    invite = await storage.perform(FindInvite(made.code))
    assert invite is not None
    assert (invite.origin, invite.uses) == (None, 5)


async def test_the_new_owner_reads_what_it_must_know(storage: Storage) -> None:
    made = await handed_over(storage)
    read = await storage.perform(ReadLogHistory(made.peer, made.channel, 0, 10))
    assert read is not None
    assert (read.head, [line.sequence for line in read.lines], read.lines[0].nonce) == (1, [1], "n")
    assert len(read.lines[0].fingerprint) == 32
    rest = await storage.perform(ReadLogHistory(made.peer, made.channel, 1, 10))
    assert rest is not None
    assert rest.lines == ()
    assert await storage.perform(ReadLogHistory(ELSEWHERE, made.channel, 0, 10)) is None
    passed = await storage.perform(ReadTransferred(made.guild))
    assert [(log.log_id, log.epoch) for log in passed.logs] == [(made.guild, 1), (made.channel, 1)]
    assert [(invite.code, invite.created_by) for invite in passed.invites] == [(made.code, made.owner)]
    guild = await storage.perform(FindGuildAccess(made.guild, made.owner))
    assert guild is not None
    assert (guild.guild.origin, guild.base) == (made.peer, 0)
    await storage.perform(EndMove(made.guild, done=True))
    assert await storage.perform(ReadLogHistory(made.peer, made.channel, 0, 10)) is None
    await storage.perform(DropMirror(made.peer, made.guild, NOW_MS))
    assert await storage.perform(FindOwnership(made.guild)) is None
    assert await storage.perform(ListHandovers(made.guild)) == (made.handover(),)
    assert await storage.perform(FindInvite(made.code)) is None


async def snapshot_of(storage: Storage, made: Ours) -> Snapshot:
    """The guild as its new owner shows it, in an epoch of its own."""
    return Snapshot(
        made.guild,
        "handed over",
        NOW_MS,
        9,
        await head(storage, made) + 1,
        members=[MirroredMember(made.owner, "owner", "owner", NOW_MS, origin=HERE)],
        channels=[],
        term=2,
    )


async def test_invites_lead_on_also_when_the_mirror_has_begun_anew(storage: Storage) -> None:
    made = await handed_over(storage)
    before = await storage.perform(FindInvite(made.code))
    assert before is not None
    assert before.origin == made.peer
    assert await storage.perform(StoreMirror(made.peer, made.guild, await snapshot_of(storage, made), NOW_MS))
    place = await storage.perform(FindLogHead(made.guild))
    assert place is not None
    assert place.epoch == 9
    assert await storage.perform(FindInvite(made.code)) == replace(before, guild_name="handed over")


async def test_a_lost_server_role_writes_nothing_to_a_guild_that_was_handed_over(storage: Storage) -> None:
    made, admin, code = await ours(storage), await add_user(storage), f"c{new_id()}"
    await storage.perform(GrantServerRole(admin, "admin", NOW_MS))
    await storage.perform(InsertInvite(Author(admin), code, made.guild, None, None, NOW_MS))
    assert await storage.perform(BeginMove(made.guild, made.peer, NOW_MS)) is None
    before = await head(storage, made)
    assert await storage.perform(HandOver(made.handover(), before)) is None
    assert await storage.perform(RevokeServerRole(admin, "admin", NOW_MS))
    assert await head(storage, made) == before, "its log is another server's"
    assert code not in {invite.code for invite in (await storage.perform(ReadTransferred(made.guild))).invites}


@pytest.mark.parametrize("kind", ["move", "succession"])
async def test_a_guild_that_comes_back_has_the_invites_that_come_with_it(storage: Storage, kind: str) -> None:
    made = await ours(storage)
    revoked, used = made.code, f"c{new_id()}"
    await storage.perform(InsertInvite(made.author, used, made.guild, 2, None, NOW_MS))
    assert await storage.perform(BeginMove(made.guild, made.peer, NOW_MS)) is None
    assert await storage.perform(HandOver(made.handover(), await head(storage, made))) is None
    back = made.handover(kind=kind, owner=made.peer, to=HERE, term=3)
    passed = (TransferredInvite(used, made.owner, NOW_MS, 1, 2),) if kind == "move" else ()
    assert await storage.perform(TakeGuild(back, 7, None, passed, NOW_MS))
    assert await storage.perform(FindInvite(revoked)) is None, "the owner between has revoked it, perhaps"
    found = await storage.perform(ListInvites(made.guild))
    assert [(invite.code, invite.uses) for invite in found] == [(invite.code, invite.uses) for invite in passed]


async def test_a_former_owner_that_was_away_follows(storage: Storage) -> None:
    made = await ours(storage)
    assert await storage.perform(FollowHandover(made.handover(kind="succession")))
    guild = await storage.perform(FindGuildAccess(made.guild, made.owner))
    assert guild is not None
    assert (guild.guild.origin, guild.base) == (made.peer, 0)
    assert await storage.perform(FindMirrored(made.peer, made.guild)) is None


async def test_an_owner_names_a_successor(storage: Storage) -> None:
    made = await ours(storage)
    statement = made.handover(kind="succession", serial=5)
    assert await storage.perform(FindSuccession(made.guild)) is None
    assert await storage.perform(SetSuccessor(made.author, made.guild, statement, 5, NOW_MS))
    assert await storage.perform(FindSuccession(made.guild)) == statement
    assert not await storage.perform(SetSuccessor(made.author, made.guild, None, 5, NOW_MS))
    ownership = await storage.perform(FindOwnership(made.guild))
    assert ownership is not None
    assert (ownership.term, ownership.serial) == (1, 5)
    snapshot = await storage.perform(ReadSnapshot(made.peer, made.guild))
    assert snapshot is not None
    assert (snapshot.term, snapshot.serial) == (1, 5)
    assert await storage.perform(SetSuccessor(made.author, made.guild, None, 6, NOW_MS))
    assert await storage.perform(FindSuccession(made.guild)) is None
    with pytest.raises(Refusal) as refused:
        await storage.perform(SetSuccessor(Author(made.remote), made.guild, statement, 7, NOW_MS))
    assert refused.value.code is ErrorCode.FORBIDDEN
