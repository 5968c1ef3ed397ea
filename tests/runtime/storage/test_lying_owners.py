"""What the store does not take from the owner of a mirrored guild (PROTOCOL 16.5)."""

from __future__ import annotations

from typing import Any

import asyncpg
import msgspec
import pytest
from msgspec.structs import replace

from openguild_proto.canonical.event import build_event
from openguild_proto.effects.channels import Appended, FindChannelAccess, ReadEvents
from openguild_proto.effects.guilds import FindGuildAccess
from openguild_proto.effects.handovers import AbsorbHistory, StageHistory, TakeGuild
from openguild_proto.effects.messages import FindMessage, ReadVersions
from openguild_proto.effects.mirrors import FindMirrorHead, MirrorEvents, MirrorOutcome, StoreMirror
from openguild_proto.effects.roles import GrantGuildRole
from openguild_proto.limits import MAX_MESSAGE_VERSIONS
from openguild_proto.mirror_records import Handover, HistoricEvent
from openguild_proto.operations.mirrored_events import read_mirrored
from openguild_proto.records import LogPosition, Redact
from openguild_proto.schemas.log_contents import ChannelCreatedContent, ChannelRoleSetContent, MemberLeftContent
from openguild_proto.schemas.log_writer import LogWriter
from openguild_runtime.storage.base import Storage
from openguild_runtime.storage.postgres.stray_edits import STRAYS_AT_ONCE
from tests.runtime.storage.test_mirrors import mirrored, register
from tests.support.messages import changing
from tests.support.owner_server import HERE, NOW_MS, OWNER, SIGNER, Owner, keys_at, new_id

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
    place = await storage.perform(FindMirrorHead(OWNER, owner.guild_id))
    assert place is not None
    for user_id, given in ((carl, "admin"), (bob, "moderator")):
        place = LogPosition(place.log_id, place.epoch, place.sequence + 1)
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


async def test_edits_of_a_message_that_is_not_here_are_read_some_at_a_time(
    kept_storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, owner = kept_storage, Owner()
    before = owner.post("before the mirror")
    await mirrored(storage, owner)
    for number in range(2 * STRAYS_AT_ONCE):
        owner.append("message.edited", {"target": before.event_id, "content": f"stray {number}"})

    async def mirror() -> MirrorOutcome:
        place = await storage.perform(FindMirrorHead(OWNER, owner.channel_id))
        assert place is not None
        news = owner.news(owner.channel_id, place.sequence, 2 * STRAYS_AT_ONCE)
        return await storage.perform(MirrorEvents(OWNER, owner.guild_id, owner.channel_id, 1, news))

    assert (await mirror()).status == "ok"
    owner.append("message.redacted", {"target": before.event_id})
    fetch, counts = asyncpg.Connection.fetch, [0]

    async def counted(*arguments: Any, **options: Any) -> Any:
        rows = await fetch(*arguments, **options)
        counts.append(len(rows))
        return rows

    monkeypatch.setattr(asyncpg.Connection, "fetch", counted)
    assert (await mirror()).status == "ok"
    monkeypatch.undo()
    assert max(counts) <= STRAYS_AT_ONCE
    events = await storage.perform(ReadEvents(owner.channel_id, 3 * STRAYS_AT_ONCE))
    assert len(events or ()) == 2 * STRAYS_AT_ONCE + 1
    assert not any(b"stray" in event.wire for event in events or ())


async def test_edits_that_did_nothing_go_with_their_message_also_at_its_next_owner(kept_storage: Storage) -> None:
    storage, owner = kept_storage, Owner()
    user_id = await mirrored(storage, owner)
    message = owner.post("first")
    for number in range(MAX_MESSAGE_VERSIONS + STRAYS_AT_ONCE + 1):
        owner.append("message.edited", {"target": message.event_id, "content": f"text {number}"}, lies=True)
    news = owner.news(owner.channel_id, 0, 2 * MAX_MESSAGE_VERSIONS)
    assert (await storage.perform(MirrorEvents(OWNER, owner.guild_id, owner.channel_id, 1, news))).status == "ok"
    lost = Handover("succession", owner.guild_id, OWNER, HERE, 2, NOW_MS, NOW_MS + 1_000, serial=1)
    assert await storage.perform(TakeGuild(lost, 7_000_000, None, (), NOW_MS))
    await storage.perform(GrantGuildRole(guild_id=owner.guild_id, user_id=user_id, role="moderator", now_ms=NOW_MS))
    redaction = changing(owner.channel_id, user_id, Redact(target=message.event_id, reason="x"), now_ms=NOW_MS)
    assert isinstance(await storage.perform(redaction), Appended)
    events = await storage.perform(ReadEvents(owner.channel_id, 2 * MAX_MESSAGE_VERSIONS))
    assert len(events or ()) == MAX_MESSAGE_VERSIONS + STRAYS_AT_ONCE + 3
    assert not any(b"text " in event.wire or b"first" in event.wire for event in events or ())


async def test_edits_without_an_end_are_no_versions_and_go_with_their_message(kept_storage: Storage) -> None:
    """An answer with all of them would have any size, and so would a redaction."""
    storage, owner = kept_storage, Owner()
    await mirrored(storage, owner)
    message = owner.post("first")
    for number in range(MAX_MESSAGE_VERSIONS + 9):
        owner.append("message.edited", {"target": message.event_id, "content": f"text {number}"}, lies=True)

    async def mirror() -> None:
        place = await storage.perform(FindMirrorHead(OWNER, owner.channel_id))
        assert place is not None
        news = owner.news(owner.channel_id, place.sequence, 2 * MAX_MESSAGE_VERSIONS)
        assert (await storage.perform(MirrorEvents(OWNER, owner.guild_id, owner.channel_id, 1, news))).status == "ok"

    await mirror()
    versions = await storage.perform(ReadVersions(channel_id=owner.channel_id, reader_id="", event_id=message.event_id))
    assert versions is not None
    assert len(versions) == MAX_MESSAGE_VERSIONS
    assert f"text {MAX_MESSAGE_VERSIONS - 2}".encode() in versions[-1].wire
    owner.append("message.redacted", {"target": message.event_id})
    await mirror()
    events = await storage.perform(ReadEvents(owner.channel_id, 2 * MAX_MESSAGE_VERSIONS))
    assert len(events or ()) == MAX_MESSAGE_VERSIONS + 11
    assert not any(b"text " in event.wire or b"first" in event.wire for event in events or ())


async def test_an_id_that_a_third_server_gave_out_again_stops_no_mirror(kept_storage: Storage) -> None:
    storage, owner = kept_storage, Owner()
    await mirrored(storage, owner)
    carol = await register(storage, "carol")
    owner.join(carol)  # the owner takes them for a user of the third server
    forged = owner.post("as carol", sender=carol, home="third.example")
    owner.append(
        "message.edited", {"target": forged.event_id, "content": "as carol"}, sender=carol, home="third.example"
    )
    owner.post("hers")
    outcome = await storage.perform(
        MirrorEvents(OWNER, owner.guild_id, owner.channel_id, 1, owner.news(owner.channel_id, 0))
    )
    assert (outcome.status, outcome.place and outcome.place.sequence) == ("ok", 3)
    events = await storage.perform(ReadEvents(owner.channel_id, 10))
    assert [(event.sequence, b"as carol" in event.wire) for event in events or ()] == [
        (1, False),
        (2, False),
        (3, False),
    ]
    found = await storage.perform(FindMessage(owner.channel_id, carol, forged.event_id))
    assert found is not None
    (message,) = found.messages
    assert (message.state.redacted_by, message.state.edited_text) == (forged.event_id, None)


async def test_history_of_an_id_that_a_third_server_gave_out_again_is_copied(kept_storage: Storage) -> None:
    storage, owner = kept_storage, Owner()
    carol = await register(storage, "carol")
    owner.join(carol)
    owner.post("as carol", sender=carol, home="third.example")
    owner.post("hers")
    await mirrored(storage, owner)
    lines = tuple(HistoricEvent(event, None, b"") for event in owner.news(owner.channel_id, 0))
    assert await storage.perform(StageHistory(OWNER, owner.channel_id, lines)) is None
    await storage.perform(AbsorbHistory(OWNER, owner.channel_id))
    events = await storage.perform(ReadEvents(owner.channel_id, 10))
    assert [b"as carol" in event.wire for event in events or ()] == [False, False]


async def test_channels_made_by_nobody_who_could_be_a_member(kept_storage: Storage) -> None:
    storage, owner = kept_storage, Owner()
    bob = await mirrored(storage, owner)
    place = await storage.perform(FindMirrorHead(OWNER, owner.guild_id))
    for sender in (OWNER, "nobody", "11111111-1111-4111-8111-1111111111FF"):
        assert place is not None
        place, channel_id = LogPosition(place.log_id, place.epoch, place.sequence + 1), new_id()
        built = LogWriter(OWNER, SIGNER).write(
            place, ChannelCreatedContent(channel_id, "made", None, 0), sender=sender, now_ms=NOW_MS
        )
        event = read_mirrored(built.wire, place, OWNER, HERE, keys_at, at_ms=NOW_MS, of_guild=True)
        assert (await storage.perform(MirrorEvents(OWNER, owner.guild_id, owner.guild_id, 1, (event,)))).place == place
        assert await storage.perform(FindChannelAccess(channel_id, bob)) is not None


async def test_changes_of_messages_of_other_channels_change_nothing(kept_storage: Storage) -> None:
    storage, owner, other = kept_storage, Owner(), Owner()
    bob = await mirrored(storage, owner)
    await mirrored(storage, other)
    (mine, theirs) = (owner.post("mine"), other.post("theirs"))
    for each in (owner, other):
        news = each.news(each.channel_id, 0)
        assert (await storage.perform(MirrorEvents(OWNER, each.guild_id, each.channel_id, 1, news))).status == "ok"
    content = {"author": {"id": owner.user_id, "username": "x"}, "nonce": "n", "target": theirs.event_id}
    for sequence, event_type, more in (
        (2, "message.edited", {"content": "forged"}),
        (3, "reaction.added", {"emoji": "x"}),
        (4, "message.redacted", {}),
    ):
        wire = build_event(
            server_name=OWNER, room_id=owner.channel_id, event_type=event_type, sender=owner.user_id,
            content={**content, **more}, origin_ts_ms=NOW_MS, signer=SIGNER,
        ).wire  # fmt: skip
        place = LogPosition(owner.channel_id, 1, sequence)
        event = read_mirrored(wire, place, OWNER, HERE, keys_at, at_ms=NOW_MS, of_guild=False)
        outcome = await storage.perform(MirrorEvents(OWNER, owner.guild_id, owner.channel_id, 1, (event,)))
        assert (outcome.status, outcome.place) == ("ok", place)
    for each, message in ((owner, mine), (other, theirs)):
        found = await storage.perform(FindMessage(each.channel_id, bob, message.event_id))
        assert found is not None
        (line,) = found.messages
        assert (line.state.versions, line.state.redacted_by, line.state.reactions) == (1, None, "[]")


async def test_events_with_nul_in_what_nobody_reads(kept_storage: Storage) -> None:
    """PostgreSQL's jsonb cannot hold it: joins, and taking the guild over, look into events of the guild's log."""
    storage, owner = kept_storage, Owner()
    carol = await register(storage, "carol")
    joined = owner.join(carol)
    await mirrored(storage, owner)
    place = await storage.perform(FindMirrorHead(OWNER, owner.guild_id))
    assert place is not None
    place = LogPosition(place.log_id, place.epoch, place.sequence + 1)
    left = MemberLeftContent(owner.user_id)
    content = {**msgspec.to_builtins(left), "more": "\0", "place": {"epoch": place.epoch, "sequence": place.sequence}}
    wire = build_event(
        server_name=OWNER, room_id=owner.guild_id, event_type=left.event_type, sender=owner.user_id, content=content,
        origin_ts_ms=NOW_MS, signer=SIGNER,
    ).wire  # fmt: skip
    event = read_mirrored(wire, place, OWNER, HERE, keys_at, at_ms=NOW_MS, of_guild=True)
    assert (await storage.perform(MirrorEvents(OWNER, owner.guild_id, owner.guild_id, 1, (event,)))).place == place
    stands = LogPosition(owner.guild_id, place.epoch, place.sequence - 1)
    asked = StoreMirror(OWNER, owner.guild_id, None, NOW_MS, joined=joined.member, stands=stands)
    assert await storage.perform(asked)
    access = await storage.perform(FindGuildAccess(owner.guild_id, carol))
    assert access is not None
    assert access.role == "member"
    lines = tuple(
        HistoricEvent(line, None, b"") for line in (*owner.news(owner.guild_id, 0, place.sequence - 1), event)
    )
    assert await storage.perform(StageHistory(OWNER, owner.guild_id, lines)) is None
    await storage.perform(AbsorbHistory(OWNER, owner.guild_id))
