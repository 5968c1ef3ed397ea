"""A moderator clears the reactions of a message, on both stores (PROTOCOL 6.6.10)."""

from __future__ import annotations

from typing import Any, NamedTuple

import anyio
import pytest
from msgspec.structs import replace

from openguild_proto.effects.channels import Appended, AppendEvent, AppendFailure, Unchanged
from openguild_proto.effects.messages import FindMessage, ReadMessages
from openguild_proto.effects.roles import GrantGuildRole
from openguild_proto.effects.search import SearchMessages
from openguild_proto.errors import ErrorCode, Refusal
from openguild_proto.limits import MAX_MESSAGE_EMOJI, MAX_SHOWN_REACTORS
from openguild_proto.policy.search import Has, SearchConditions
from openguild_proto.records import NO_REACTIONS, ClearReactions, React, Redact, StoredEvent
from openguild_runtime.storage.base import Storage
from tests.runtime.storage.test_taking_over import copied, level, mirrored
from tests.support.deeds import NOW, add_channel, add_guild, add_user
from tests.support.messages import changing, counts, found, new_event_id, post, reacted, reactors, stored
from tests.support.owner_server import HERE, Owner

pytestmark = pytest.mark.anyio


class Place(NamedTuple):
    """A channel, its users by role, and a message of the member's in it."""

    storage: Storage
    channel_id: str
    owner: str
    moderator: str
    member: str
    message: StoredEvent

    async def react(self, user_id: str, emoji: str, *, adds: bool = True) -> None:
        await stored(self.storage, self.reaction(user_id, emoji, adds=adds))

    def reaction(self, user_id: str, emoji: str, *, adds: bool = True) -> AppendEvent:
        return changing(self.channel_id, user_id, React(self.message.event_id, emoji, adds=adds))

    def clear(self, emoji: str | None = None, user_id: str | None = None, nonce: str | None = None) -> AppendEvent:
        change = ClearReactions(self.message.event_id, emoji)
        return changing(self.channel_id, user_id or self.moderator, change, nonce=nonce)

    async def shown(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        return reactors(await found(self.storage, self.channel_id, self.message.event_id))

    async def attempt(self, effect: AppendEvent) -> Any:
        try:
            return await self.storage.perform(effect)
        except Refusal as refusal:
            return refusal.code

    async def together(self, *effects: AppendEvent) -> list[Any]:
        """What becomes of effects that are performed at once, in their order."""
        outcomes: list[Any] = [None] * len(effects)

        async def perform(number: int) -> None:
            outcomes[number] = await self.attempt(effects[number])

        async with anyio.create_task_group() as tasks:
            for number in range(len(effects)):
                tasks.start_soon(perform, number)
        return outcomes


@pytest.fixture
async def place(kept_storage: Storage) -> Place:
    owner, moderator, member = [await add_user(kept_storage) for _ in range(3)]
    guild = await add_guild(kept_storage, owner)
    for user_id, role in ((moderator, "moderator"), (member, "member")):
        await kept_storage.perform(GrantGuildRole(guild_id=guild, user_id=user_id, role=role, now_ms=NOW))
    channel_id = await add_channel(kept_storage, guild, owner)
    message = await stored(kept_storage, post(channel_id, member, "hello"))
    return Place(kept_storage, channel_id, owner, moderator, member, message)


async def test_one_emoji_goes_and_the_others_stay(place: Place) -> None:
    for user_id, emoji in ((place.member, "rude"), (place.owner, "rude"), (place.owner, "heart")):
        await place.react(user_id, emoji)
    event = await stored(place.storage, place.clear("rude"))
    assert event.sequence == 5
    message = await found(place.storage, place.channel_id, place.message.event_id, place.owner)
    assert (counts(message.state), reacted(message, place.owner)) == ((("heart", 1),), ("heart",))
    assert message.wire == place.message.wire, "the message itself stays"
    assert isinstance(await place.attempt(place.reaction(place.member, "rude", adds=False)), Unchanged)
    await place.react(place.owner, "rude")
    assert await place.shown() == (("heart", (place.owner,)), ("rude", (place.owner,)))


async def test_all_emoji_go(place: Place) -> None:
    for emoji in ("one", "two"):
        await place.react(place.member, emoji)
    await stored(place.storage, place.clear())
    assert (await found(place.storage, place.channel_id, place.message.event_id)).state.reactions == NO_REACTIONS
    await place.react(place.member, "two")
    assert await place.shown() == (("two", (place.member,)),)


async def test_only_moderators_clear(place: Place) -> None:
    await place.react(place.owner, "heart")
    outsider = await add_user(place.storage)
    assert await place.attempt(place.clear(user_id=place.member)) is ErrorCode.FORBIDDEN, "though it is their message"
    assert await place.attempt(place.clear("heart", outsider)) is ErrorCode.NOT_FOUND
    unknown = changing(place.channel_id, place.moderator, ClearReactions(new_event_id()))
    assert await place.attempt(unknown) is ErrorCode.NOT_FOUND
    assert await place.shown() == (("heart", (place.owner,)),)
    assert (await stored(place.storage, place.clear(user_id=place.owner))).sequence == 3, (
        "what was refused took no place"
    )


async def test_what_is_not_there_is_not_cleared(place: Place) -> None:
    state = (await found(place.storage, place.channel_id, place.message.event_id)).state
    assert await place.attempt(place.clear()) == Unchanged(state)
    await place.react(place.member, "heart")
    state = (await found(place.storage, place.channel_id, place.message.event_id)).state
    assert await place.attempt(place.clear("rude")) == Unchanged(state)
    await stored(place.storage, changing(place.channel_id, place.member, Redact(place.message.event_id)))
    assert await place.attempt(place.clear()) is ErrorCode.MESSAGE_REDACTED


async def test_a_repeat_is_answered_as_the_first_and_clears_nothing_more(place: Place) -> None:
    await place.react(place.member, "heart")
    first = await stored(place.storage, place.clear(nonce="n"))
    await place.react(place.owner, "heart")
    assert await place.storage.perform(place.clear(nonce="n")) == Appended(first, repeated=True)
    assert await place.attempt(place.clear("heart", nonce="n")) == AppendFailure("nonce_reused")
    assert await place.shown() == (("heart", (place.owner,)),)


async def test_in_one_batch_each_sees_what_those_before_it_did(place: Place) -> None:
    """Reactions from before the batch and of the batch, cleared, added and taken back in it."""
    for user_id in (place.member, place.owner):
        await place.react(user_id, "old")
    outcomes = await place.together(
        place.reaction(place.moderator, "old"),
        place.reaction(place.moderator, "new"),
        place.clear("old"),
        place.reaction(place.member, "old", adds=False),  # it is not there any more
        place.reaction(place.owner, "old"),
        place.clear(),
        place.clear("new"),
        place.reaction(place.member, "old"),
        place.reaction(place.owner, "new"),
        place.reaction(place.owner, "new", adds=False),
    )
    kinds = [type(outcome) for outcome in outcomes]
    assert kinds == [*[Appended] * 3, Unchanged, *[Appended] * 2, Unchanged, *[Appended] * 3]
    assert await place.shown() == (("old", (place.member,)),)
    for user_id in (place.owner, place.moderator):
        for emoji in ("old", "new"):
            assert isinstance(await place.attempt(place.reaction(user_id, emoji, adds=False)), Unchanged)
    await place.react(place.member, "old", adds=False)


async def test_a_message_may_be_posted_and_cleared_and_taken_back_in_one_batch(place: Place) -> None:
    new = post(place.channel_id, place.member, "short-lived")
    there = place._replace(message=replace(place.message, event_id=new.event_id))
    await there.together(
        new,
        there.reaction(place.member, "one"),
        there.clear(),
        there.reaction(place.member, "two"),
        changing(place.channel_id, place.member, Redact(new.event_id)),
    )
    state = (await found(place.storage, place.channel_id, new.event_id)).state
    assert (state.reactions, state.redacted_by is None) == (NO_REACTIONS, False)


async def test_a_cleared_crowd_is_none_any_more(place: Place) -> None:
    guild = await add_guild(place.storage, place.owner)
    channel_id = await add_channel(place.storage, guild, place.owner)
    message = await stored(place.storage, post(channel_id, place.owner, "hello"))
    crowded = place._replace(channel_id=channel_id, message=message, moderator=place.owner)
    users = [await add_user(place.storage) for _ in range(MAX_SHOWN_REACTORS + 2)]
    for user_id in users:
        await place.storage.perform(GrantGuildRole(guild_id=guild, user_id=user_id, role="member", now_ms=NOW))
        await crowded.react(user_id, "+1")
    await crowded.react(users[0], "heart")
    assert len((await found(place.storage, channel_id, message.event_id)).crowds) == 1
    await stored(place.storage, crowded.clear("+1"))
    state = await found(place.storage, channel_id, message.event_id, users[-1])
    assert (counts(state.state), state.state.is_crowded, state.crowds) == ((("heart", 1),), False, ())
    for user_id in users[::-1]:
        await crowded.react(user_id, "+1")
    shown = dict(reactors(await found(place.storage, channel_id, message.event_id)))
    assert shown["+1"] == tuple(users[: -MAX_SHOWN_REACTORS - 1 : -1])


async def test_the_place_of_a_cleared_emoji_is_free(place: Place) -> None:
    await place.together(*[place.reaction(place.member, f"e{number}") for number in range(MAX_MESSAGE_EMOJI)])
    assert await place.attempt(place.reaction(place.member, "more")) is ErrorCode.LIMIT_REACHED
    cleared, added = await place.together(place.clear("e3"), place.reaction(place.member, "more"))
    assert [type(cleared), type(added)] == [Appended, Appended]
    assert [emoji for emoji, _ in await place.shown()][-2:] == [f"e{MAX_MESSAGE_EMOJI - 1}", "more"]


async def test_what_another_server_has_decided_is_applied_or_stands_in_the_log(place: Place) -> None:
    for emoji in ("one", "two"):
        await place.react(place.member, emoji)
    decided = [
        replace(place.clear(emoji, place.member), author=None) for emoji in ("none", "one", None)
    ]  # by a server with other rights
    assert [(await stored(place.storage, effect)).sequence for effect in decided[:2]] == [4, 5]
    assert await place.shown() == (("two", (place.member,)),)
    await place.together(decided[2], replace(place.reaction(place.owner, "two"), author=None))
    assert await place.shown() == (("two", (place.owner,)),)


async def test_a_mirror_and_its_history_end_as_the_owner(kept_storage: Storage) -> None:
    owner = Owner()
    message = owner.post("hello").event_id

    def happens(event_type: str, **content: str) -> None:
        owner.append(event_type, {"target": message, **content})

    happens("reaction.added", emoji="one")
    happens("reaction.added", emoji="two")
    happens("reactions.cleared", emoji="one", reason="rude")
    user_id = await mirrored(kept_storage, owner)
    later = owner.post("later").event_id
    happens("reaction.added", emoji="one")
    for emoji in ("one", "two"):
        owner.append("reaction.added", {"target": later, "emoji": emoji}, sender=user_id, home=HERE)
    owner.append("reactions.cleared", {"target": later, "emoji": "two"})
    await level(kept_storage, owner, owner.channel_id)
    question = FindMessage(channel_id=owner.channel_id, reader_id=user_id, event_id=later)
    here = await kept_storage.perform(question)
    assert here is not None
    assert counts(here.messages[0].state) == (("one", 1),)
    assert here == owner.do(question)
    await copied(kept_storage, owner)
    everything = ReadMessages(channel_id=owner.channel_id, reader_id=user_id, limit=50)
    page = await kept_storage.perform(everything)
    assert page is not None
    assert [counts(found.state) for found in page.messages] == [(("two", 1), ("one", 1)), (("one", 1),)]
    assert page == owner.do(everything)


async def test_a_message_without_its_reactions_has_none_in_a_search(place: Place) -> None:
    await place.react(place.owner, "heart")
    wanted = SearchMessages(reader_id=place.member, wanted=SearchConditions(has=frozenset({Has.REACTION})), limit=5)
    before = await place.storage.perform(wanted)
    await stored(place.storage, place.clear("heart"))
    after = await place.storage.perform(wanted)
    assert [len(hits) for hits in (before, after)] == [1, 0]
