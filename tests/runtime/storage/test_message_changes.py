"""What may happen to a message, on both stores: each rule, races, repeats, and what is left of a redacted one (PROTOCOL 6.6)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import anyio
import pytest

from openguild_proto.canonical.redaction import redacted_wire
from openguild_proto.effects.channels import Appended, AppendEvent, AppendFailure, FindPosted, ReadEvents, Unchanged
from openguild_proto.effects.messages import ListPins, MessageVersion, ReadMessages, ReadVersions
from openguild_proto.effects.roles import GrantGuildRole
from openguild_proto.errors import ErrorCode, Refusal
from openguild_proto.limits import MAX_CHANNEL_PINS, MAX_MESSAGE_EMOJI, MAX_MESSAGE_VERSIONS
from openguild_proto.policy.channels import KIND_BYTES
from openguild_proto.records import NO_REACTIONS, Edit, Pin, React, Redact, StoredEvent
from openguild_runtime.storage.base import Storage
from tests.support.deeds import NOW, add_channel, add_guild, add_user, new_id
from tests.support.messages import changing, counts, found, new_event_id, post, reacted, reactors, stored

pytestmark = pytest.mark.anyio


@pytest.fixture
def storage(kept_storage: Storage) -> Storage:
    return kept_storage


class Place(NamedTuple):
    """A channel, its users by role, and a message of the member's in it."""

    storage: Storage
    guild_id: str
    channel_id: str
    owner: str
    moderator: str
    member: str
    viewer: str
    message: StoredEvent


@pytest.fixture
async def place(storage: Storage) -> Place:
    owner, moderator, member, viewer = [await add_user(storage) for _ in range(4)]
    guild = await add_guild(storage, owner)
    for user_id, role in ((moderator, "moderator"), (member, "member"), (viewer, "viewer")):
        await storage.perform(GrantGuildRole(guild_id=guild, user_id=user_id, role=role, now_ms=NOW))
    channel_id = await add_channel(storage, guild, owner)
    message = await stored(storage, post(channel_id, member, "hello", nonce="first"))
    return Place(storage, guild, channel_id, owner, moderator, member, viewer, message)


async def attempt(storage: Storage, effect: AppendEvent) -> Any:
    """The outcome, or the code of the refusal."""
    try:
        return await storage.perform(effect)
    except Refusal as refusal:
        return refusal.code


async def together(storage: Storage, effects: Sequence[AppendEvent]) -> list[Any]:
    """What becomes of effects that are performed at once, in their order."""
    outcomes: list[Any] = [None] * len(effects)

    async def perform(number: int) -> None:
        outcomes[number] = await attempt(storage, effects[number])

    async with anyio.create_task_group() as tasks:
        for number in range(len(effects)):
            tasks.start_soon(perform, number)
    return outcomes


async def test_an_edit_gives_another_text_and_keeps_the_first(place: Place) -> None:
    storage, channel_id, target = place.storage, place.channel_id, place.message.event_id
    edit = changing(channel_id, place.member, Edit(target, "hello there"), now_ms=NOW + 7)
    event = await stored(storage, edit)
    assert event.sequence == 2
    message = await found(storage, channel_id, target)
    assert message.wire == place.message.wire
    state = message.state
    assert (state.edited_text, state.edited_at_ms, state.versions) == ("hello there", NOW + 7, 2)
    assert (state.sequence, state.author_id, state.created_at_ms) == (1, place.member, NOW)
    assert await storage.perform(ReadVersions(channel_id=channel_id, reader_id=place.member, event_id=target)) == (
        MessageVersion(1, target, place.message.wire, NOW),
        MessageVersion(2, edit.event_id, edit.wire, NOW + 7),
    )


async def test_who_may_change_a_message(place: Place) -> None:
    """An edit is the author's alone; a redaction the author's or a moderator's; a pin a moderator's (PROTOCOL 6.6)."""
    storage, channel_id, target = place.storage, place.channel_id, place.message.event_id

    async def tried(user_id: str, *changes: Any) -> list[Any]:
        return [await attempt(storage, changing(channel_id, user_id, change)) for change in changes]

    forbidden, unknown = ErrorCode.FORBIDDEN, ErrorCode.NOT_FOUND
    outsider = await add_user(storage)
    everything = [Edit(target, "x"), Redact(target), React(target, "+1", adds=True), Pin(target, pins=True)]
    assert await tried(place.viewer, *everything) == [forbidden] * 4
    assert await tried(outsider, *everything) == [unknown] * 4
    assert await tried(place.moderator, everything[0]) == [forbidden]
    assert await tried(place.member, everything[3]) == [forbidden]
    assert await tried(place.member, Edit(new_event_id(), "x")) == [unknown]
    assert await attempt(storage, changing(new_id(), place.member, everything[0])) == AppendFailure("no_channel")
    assert (await found(storage, channel_id, target)).state.versions == 1
    (redacted,) = await tried(place.moderator, Redact(target, "spam"))
    assert isinstance(redacted, Appended)
    assert redacted.event.sequence == 2, "what was refused took no place in the log"


async def test_a_change_of_what_is_no_message_here(place: Place) -> None:
    storage, channel_id = place.storage, place.channel_id
    edit = await stored(storage, changing(channel_id, place.member, Edit(place.message.event_id, "x")))
    other = await add_channel(storage, await add_guild(storage, place.member), place.member)
    elsewhere = await stored(storage, post(other, place.member, "elsewhere"))
    for target in (edit.event_id, elsewhere.event_id):
        outcome = await attempt(storage, changing(channel_id, place.member, React(target, "+1", adds=True)))
        assert outcome is ErrorCode.NOT_FOUND


async def test_a_redacted_message_keeps_its_place_and_nothing_else_happens_to_it(place: Place) -> None:
    storage, channel_id, target = place.storage, place.channel_id, place.message.event_id
    edit = await stored(storage, changing(channel_id, place.member, Edit(target, "second")))
    await stored(storage, changing(channel_id, place.member, React(target, "+1", adds=True)))
    await stored(storage, changing(channel_id, place.owner, Pin(target, pins=True)))
    redaction = await stored(storage, changing(channel_id, place.member, Redact(target)))
    message = await found(storage, channel_id, target, place.member)
    assert message.wire == redacted_wire(place.message.wire, redaction.event_id)
    assert (message.state.redacted_by, message.state.edited_text, message.state.pinned_at_ms) == (
        redaction.event_id, None, None,
    )  # fmt: skip
    assert (message.state.reactions, message.crowds) == (NO_REACTIONS, ())
    versions = await storage.perform(ReadVersions(channel_id=channel_id, reader_id=place.member, event_id=target))
    assert versions is not None
    assert [version.wire for version in versions] == [
        redacted_wire(wire, redaction.event_id) for wire in (place.message.wire, edit.wire)
    ]
    raw = await storage.perform(ReadEvents(log_id=channel_id, limit=100))
    assert raw is not None
    assert b"hello" not in b"".join(event.wire for event in raw)
    assert b"second" not in b"".join(event.wire for event in raw)
    page = await storage.perform(ListPins(channel_id=channel_id, reader_id=place.member, limit=MAX_CHANNEL_PINS))
    assert page is not None
    assert page.messages == ()
    for change in (Edit(target, "x"), React(target, "+1", adds=True)):
        outcome = await attempt(storage, changing(channel_id, place.member, change))
        assert outcome is ErrorCode.MESSAGE_REDACTED
    assert (
        await attempt(storage, changing(channel_id, place.owner, Pin(target, pins=True))) is ErrorCode.MESSAGE_REDACTED
    )
    for change in (Redact(target), Pin(target, pins=False)):
        outcome = await attempt(storage, changing(channel_id, place.owner, change))
        assert outcome == Unchanged(message.state)
    reply = await attempt(storage, post(channel_id, place.member, "what?", reply_to=target))
    assert reply is ErrorCode.MESSAGE_REDACTED


async def test_a_reaction_counts_once_for_each_user(place: Place) -> None:
    storage, channel_id, target = place.storage, place.channel_id, place.message.event_id
    add, take = React(target, "+1", adds=True), React(target, "+1", adds=False)
    assert isinstance(await attempt(storage, changing(channel_id, place.member, take)), Unchanged)
    await stored(storage, changing(channel_id, place.member, add))
    await stored(storage, changing(channel_id, place.owner, React(target, "heart", adds=True)))
    await stored(storage, changing(channel_id, place.owner, add))
    repeated = await attempt(storage, changing(channel_id, place.owner, add))
    assert repeated == Unchanged((await found(storage, channel_id, target)).state)
    message = await found(storage, channel_id, target, place.member)
    assert counts(message.state) == (("+1", 2), ("heart", 1))
    assert reacted(message, place.member) == ("+1",)
    assert reactors(message) == (("+1", (place.member, place.owner)), ("heart", (place.owner,)))
    await stored(storage, changing(channel_id, place.member, take))
    await stored(storage, changing(channel_id, place.owner, take))
    await stored(storage, changing(channel_id, place.member, add))
    assert counts((await found(storage, channel_id, target)).state) == (("heart", 1), ("+1", 1))


async def test_two_edits_at_once_are_two_versions(place: Place) -> None:
    storage, channel_id, target = place.storage, place.channel_id, place.message.event_id
    edits = [changing(channel_id, place.member, Edit(target, text)) for text in ("one", "two")]
    outcomes = await together(storage, [*edits, post(channel_id, place.member, "meanwhile")])
    assert [outcome.event.sequence for outcome in outcomes] == [2, 3, 4]
    state = (await found(storage, channel_id, target)).state
    assert (state.edited_text, state.versions) == ("two", 3)


async def test_an_edit_and_a_redaction_at_once_leave_no_text(place: Place) -> None:
    storage, channel_id, target = place.storage, place.channel_id, place.message.event_id
    before, redact, late = await together(
        storage,
        [
            changing(channel_id, place.member, Edit(target, "improved")),
            changing(channel_id, place.moderator, Redact(target, "why")),
            changing(channel_id, place.member, Edit(target, "too late")),
        ],
    )
    assert late is ErrorCode.MESSAGE_REDACTED
    assert isinstance(redact, Appended)
    assert isinstance(before, Appended)
    raw = await storage.perform(ReadEvents(log_id=channel_id, limit=100))
    assert raw is not None
    assert len(raw) == 3
    for text in (b"hello", b"improved", b"too late"):
        assert text not in b"".join(event.wire for event in raw)


async def test_a_message_may_be_posted_changed_and_taken_back_at_once(place: Place) -> None:
    storage, channel_id = place.storage, place.channel_id
    new = post(channel_id, place.member, "short-lived")
    outcomes = await together(
        storage,
        [
            new,
            changing(channel_id, place.member, React(new.event_id, "+1", adds=True)),
            changing(channel_id, place.member, Edit(new.event_id, "edited")),
            changing(channel_id, place.member, Redact(new.event_id)),
        ],
    )
    assert [outcome.event.sequence for outcome in outcomes] == [2, 3, 4, 5]
    message = await found(storage, channel_id, new.event_id, place.member)
    assert (message.state.reactions, message.state.versions) == (NO_REACTIONS, 2)
    assert message.wire == redacted_wire(new.wire, outcomes[3].event.event_id)


async def test_the_last_place_for_an_emoji_is_given_once(place: Place) -> None:
    storage, channel_id, target = place.storage, place.channel_id, place.message.event_id

    def react(user_id: str, emoji: str) -> AppendEvent:
        return changing(channel_id, user_id, React(target, emoji, adds=True))

    await together(storage, [react(place.member, f"e{number}") for number in range(MAX_MESSAGE_EMOJI - 1)])
    last = await together(
        storage, [react(place.member, "last"), react(place.owner, "too much"), react(place.owner, "last")]
    )
    assert [type(last[0]), last[1], type(last[2])] == [Appended, ErrorCode.LIMIT_REACHED, Appended]
    state = (await found(storage, channel_id, target)).state
    assert (len(counts(state)), counts(state)[-1]) == (MAX_MESSAGE_EMOJI, ("last", 2))


async def test_a_message_has_so_many_versions_at_most(place: Place) -> None:
    storage, channel_id, target = place.storage, place.channel_id, place.message.event_id
    outcomes = await together(
        storage,
        [changing(channel_id, place.member, Edit(target, f"text {number}")) for number in range(MAX_MESSAGE_VERSIONS)],
    )
    assert [type(outcome) for outcome in outcomes[:-1]] == [Appended] * (MAX_MESSAGE_VERSIONS - 1)
    assert outcomes[-1] is ErrorCode.LIMIT_REACHED
    state = (await found(storage, channel_id, target)).state
    assert (state.versions, state.edited_text) == (MAX_MESSAGE_VERSIONS, f"text {MAX_MESSAGE_VERSIONS - 2}")


async def test_a_channel_has_so_many_pins_at_most(place: Place) -> None:
    storage, channel_id = place.storage, place.channel_id
    posts = await together(
        storage, [post(channel_id, place.member, str(number)) for number in range(MAX_CHANNEL_PINS + 1)]
    )
    pins = [
        changing(channel_id, place.owner, Pin(outcome.event.event_id, pins=True), now_ms=NOW + number % 3)
        for number, outcome in enumerate(posts)
    ]
    outcomes = await together(storage, pins)
    assert outcomes[-1] is ErrorCode.LIMIT_REACHED
    assert all(isinstance(outcome, Appended) for outcome in outcomes[:-1])
    freed, pinned = await together(
        storage, [changing(channel_id, place.owner, Redact(posts[0].event.event_id, "why")), pins[-1]]
    )
    assert isinstance(freed, Appended)
    assert isinstance(pinned, Appended), "a redacted message is no pin"
    page = await storage.perform(ListPins(channel_id=channel_id, reader_id=place.member, limit=MAX_CHANNEL_PINS))
    assert page is not None
    order = [(message.state.pinned_at_ms, message.state.sequence) for message in page.messages]
    assert order == sorted(order, reverse=True)
    assert len(order) == MAX_CHANNEL_PINS
    for place_of_last, following in ((order[9], order[10:17]), (order[-1], [])):
        page = await storage.perform(
            ListPins(channel_id=channel_id, reader_id=place.member, limit=7, behind=place_of_last)
        )
        assert page is not None
        assert [(message.state.pinned_at_ms, message.state.sequence) for message in page.messages] == following


async def test_a_repeat_of_a_change_answers_as_the_first_did(place: Place) -> None:
    storage, channel_id, target = place.storage, place.channel_id, place.message.event_id
    first = changing(channel_id, place.member, Edit(target, "better"), nonce="n")
    event = await stored(storage, first)
    again = await storage.perform(changing(channel_id, place.member, Edit(target, "better"), nonce="n"))
    assert again == Appended(event, repeated=True)
    other = await storage.perform(changing(channel_id, place.member, Edit(target, "other"), nonce="n"))
    assert other == AppendFailure("nonce_reused")
    assert (await found(storage, channel_id, target)).state.versions == 2


async def test_a_repeat_of_a_redacted_post_gives_its_place_and_no_text(place: Place) -> None:
    storage, channel_id, target = place.storage, place.channel_id, place.message.event_id
    redaction = await stored(storage, changing(channel_id, place.member, Redact(target)))
    for text in ("hello", "whatever"):
        outcome = await storage.perform(post(channel_id, place.member, text, nonce="first"))
        assert isinstance(outcome, Appended)
        assert (outcome.repeated, outcome.event.sequence) == (True, 1)
        assert outcome.event.wire == redacted_wire(place.message.wire, redaction.event_id)
    posted = await storage.perform(FindPosted(channel_id=channel_id, sender_id=place.member, nonce="first"))
    assert posted is not None
    assert len(posted.fingerprint) == KIND_BYTES, "what depended on the text is gone"


async def test_replies_are_counted_and_shown_with_what_they_answer(place: Place) -> None:
    storage, channel_id, target = place.storage, place.channel_id, place.message.event_id
    replies = await together(storage, [post(channel_id, place.owner, f"re {n}", reply_to=target) for n in range(2)])
    missing = await attempt(storage, post(channel_id, place.owner, "re", reply_to=new_event_id()))
    assert missing is ErrorCode.NOT_FOUND
    page = await storage.perform(ReadMessages(channel_id=channel_id, reader_id=place.member, limit=2))
    assert page is not None
    assert [message.state.event_id for message in page.messages] == [outcome.event.event_id for outcome in replies]
    assert page.originals == {target: await found(storage, channel_id, target)}
    assert page.originals[target].state.replies == 2
    assert page.head == 3
    await stored(storage, changing(channel_id, place.owner, Redact(replies[1].event.event_id, "why")))
    page = await storage.perform(ReadMessages(channel_id=channel_id, reader_id=place.member, limit=1))
    assert page is not None
    assert list(page.originals) == [target], "a redacted reply stays one"


async def test_pages_of_messages(place: Place) -> None:
    storage, channel_id, target = place.storage, place.channel_id, place.message.event_id
    for number in range(5):  # messages stand at 1, 3, 5, 7, 9, 11
        await stored(storage, changing(channel_id, place.member, Edit(target, str(number))))
        await stored(storage, post(channel_id, place.member, str(number)))

    async def page(limit: int = 3, **bounds: int) -> list[int]:
        found = await storage.perform(ReadMessages(channel_id=channel_id, reader_id="", limit=limit, **bounds))
        assert found is not None
        assert found.head == 11
        return [message.state.sequence for message in found.messages]

    assert await page() == [7, 9, 11]
    assert [await page(after=after) for after in (0, 3, 4, 11, 2**63 - 1)] == [[1, 3, 5], [5, 7, 9], [5, 7, 9], [], []]
    assert [await page(before=before) for before in (12, 7, 1, 2**63 - 1)] == [[7, 9, 11], [1, 3, 5], [], [7, 9, 11]]
    assert [await page(around=around) for around in (6, 5, 0, 99)] == [[3, 5, 7], [3, 5, 7], [1], [9, 11]]
    assert await page(0) == []
    assert await storage.perform(ReadMessages(channel_id=new_id(), reader_id="", limit=1)) is None


async def test_a_repeat_in_the_batch_of_the_redaction_gives_no_text(place: Place) -> None:
    storage, channel_id, target = place.storage, place.channel_id, place.message.event_id
    redact, again = await together(
        storage,
        [
            changing(channel_id, place.member, Redact(target)),
            post(channel_id, place.member, "hello", nonce="first"),
        ],
    )
    assert isinstance(redact, Appended)
    assert isinstance(again, Appended)
    assert (again.repeated, again.event.sequence) == (True, 1)
    assert again.event.wire == redacted_wire(place.message.wire, redact.event.event_id)
