"""Creations with a key, in every store: once, whoever asks at the same time, for a day (PROTOCOL 3.8)."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import anyio
import asyncpg
import hypothesis.strategies as st
import pytest
from anyio.from_thread import start_blocking_portal
from hypothesis import HealthCheck, given, settings

from openguild_proto.effects.accounts import InsertUser
from openguild_proto.effects.channels import InsertChannel
from openguild_proto.effects.guilds import AcceptInvite, InsertGuild, InsertInvite, ListGuilds, ListInvites
from openguild_proto.effects.retention import PruneExpired
from openguild_proto.errors import ErrorCode, Refusal
from openguild_proto.limits import KEPT_ANSWER_SECS, MAX_KEPT_ANSWERS
from openguild_proto.policy.repeats import IdempotencyKey, forgotten_until
from openguild_proto.records import Author, ChannelRecord, GuildRecord, InviteRecord, LimitReached, MemberRecord
from openguild_runtime.storage.base import Storage
from openguild_runtime.storage.memory import MemoryStorage
from tests.runtime.storage.test_message_histories import Both, opened
from tests.support.deeds import NOW, add_guild, add_user, control_head, login, new_id

pytestmark = pytest.mark.anyio

LIFE_MS = KEPT_ANSWER_SECS * 1_000


@pytest.fixture
def storage(kept_storage: Storage) -> Storage:
    return kept_storage


def once(key: str = "k", said: str = "") -> IdempotencyKey:
    return IdempotencyKey(key, said.encode().ljust(32, b"."))


def new_guild(owner: str, asked: IdempotencyKey | None, now_ms: int = NOW, limit: int = 5_000) -> InsertGuild:
    return InsertGuild(author=Author(owner), guild_id=new_id(), name="g", now_ms=now_ms, limit=limit, once=asked)


class Place:
    """A guild, an invite to it, and somebody who is no member."""

    def __init__(self, owner: str, other: str, guild: str, code: str) -> None:
        self.owner, self.other, self.guild, self.code = owner, other, guild, code

    @classmethod
    async def build(cls, storage: Storage) -> Place:
        owner, other = [await add_user(storage) for _ in range(2)]
        guild, code = await add_guild(storage, owner), new_id()[:12]
        place = cls(owner, other, guild, code)
        await storage.perform(place.invite(code, None))
        return place

    def invite(self, code: str, asked: IdempotencyKey | None) -> InsertInvite:
        return InsertInvite(
            author=Author(self.owner), code=code, guild_id=self.guild, max_uses=9, expires_at_ms=None, now_ms=NOW, once=asked
        )  # fmt: skip

    def effect(self, what: str, asked: IdempotencyKey) -> Any:
        if what == "guild":
            return new_guild(self.owner, asked)
        if what == "channel":
            return InsertChannel(
                author=Author(self.owner), channel_id=new_id(), guild_id=self.guild, name="c", now_ms=NOW, once=asked
            )
        if what == "invite":
            return self.invite(new_id()[:12], asked)
        return AcceptInvite(author=Author(self.other), code=self.code, role="member", now_ms=NOW, once=asked)


KINDS = {"guild": GuildRecord, "channel": ChannelRecord, "invite": InviteRecord, "member": MemberRecord}
each = pytest.mark.parametrize("what", KINDS)


@each
async def test_ten_at_once_make_one(storage: Storage, what: str) -> None:
    place = await Place.build(storage)
    outcomes: list[Any] = []

    async def ask() -> None:
        outcomes.append(await storage.perform(place.effect(what, once())))

    async with anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(ask)
    assert len(outcomes) == 10
    assert len(set(outcomes)) == 1, "each asked with ids of its own, and all got the ids of one"
    assert isinstance(outcomes[0], KINDS[what])
    head = await control_head(storage)
    assert await storage.perform(place.effect(what, once())) == outcomes[0]
    assert await control_head(storage) == head, "a repeat tells the replicas nothing"


@each
async def test_requests_that_differ_at_once_make_one_and_refuse_the_rest(storage: Storage, what: str) -> None:
    place = await Place.build(storage)
    made: list[Any] = []
    refused: list[ErrorCode] = []

    async def ask(said: str) -> None:
        try:
            made.append(await storage.perform(place.effect(what, once(said=said))))
        except Refusal as refusal:
            refused.append(refusal.code)

    async with anyio.create_task_group() as tasks:
        for number in range(6):
            tasks.start_soon(ask, str(number))
    assert len(made) == 1
    assert refused == [ErrorCode.NONCE_REUSED] * 5


async def test_a_repeat_needs_the_session_and_the_right(storage: Storage) -> None:
    place = await Place.build(storage)
    session = login(place.owner, int.from_bytes(uuid.uuid4().bytes[:3]))
    await storage.perform(session)
    asked = place.effect("channel", once())
    await storage.perform(asked)
    stranger = InsertChannel(
        author=Author(place.other), channel_id=new_id(), guild_id=place.guild, name="c", now_ms=NOW, once=once()
    )
    with pytest.raises(Refusal) as refused:
        await storage.perform(stranger)
    assert refused.value.code in {ErrorCode.NOT_FOUND, ErrorCode.FORBIDDEN}
    ended = InsertGuild(author=Author(place.owner, new_id()), guild_id=new_id(), name="g", now_ms=NOW, once=once())
    with pytest.raises(Refusal) as refused:
        await storage.perform(ended)
    assert refused.value.code is ErrorCode.UNAUTHORIZED


async def test_what_was_not_made_is_not_kept(storage: Storage) -> None:
    owner = await add_user(storage)
    full = await storage.perform(new_guild(owner, once(), limit=0))
    assert full == LimitReached(0)
    assert isinstance(await storage.perform(new_guild(owner, once(), limit=1)), GuildRecord)
    gone = AcceptInvite(author=Author(owner), code="gone", role="member", now_ms=NOW, once=once("other"))
    assert await storage.perform(gone) is None
    assert await storage.perform(gone) is None


async def test_a_kept_answer_is_forgotten_after_a_day(storage: Storage) -> None:
    owner = await add_user(storage)
    first = await storage.perform(new_guild(owner, once()))
    assert await storage.perform(new_guild(owner, once(), NOW + LIFE_MS - 1)) == first
    later = await storage.perform(new_guild(owner, once(said="other"), NOW + LIFE_MS))
    assert isinstance(later, GuildRecord)
    assert later != first
    assert await storage.perform(new_guild(owner, once(said="other"), NOW + LIFE_MS + 1)) == later


async def test_retention_drops_what_is_forgotten(storage: Storage) -> None:
    owner = await add_user(storage)
    first = await storage.perform(new_guild(owner, once()))
    late = PruneExpired(
        now_ms=NOW, from_user=str(uuid.UUID(int=0)), control_before_ms=0, attempts_before_ms=0,
        answers_before_ms=forgotten_until(NOW + LIFE_MS), limit=100,
    )  # fmt: skip
    while await storage.perform(late):
        pass
    assert await storage.perform(new_guild(owner, once())) == first, "not a millisecond early"


async def test_a_user_s_newest_answers_are_kept(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_KEPT_ANSWERS == 1_000
    for module in ("openguild_proto.memory.repeats", "openguild_runtime.storage.postgres.repeats"):
        monkeypatch.setattr(f"{module}.MAX_KEPT_ANSWERS", 2)
    owner, other = [await add_user(storage) for _ in range(2)]
    others = await storage.perform(new_guild(other, once("0")))
    made = [await storage.perform(new_guild(owner, once(str(n)), NOW + n)) for n in range(3)]
    assert [await storage.perform(new_guild(owner, once(str(n)), NOW + 9)) for n in (2, 1)] == [made[2], made[1]]
    assert await storage.perform(new_guild(owner, once("0"), NOW + 9)) not in made
    assert await storage.perform(new_guild(other, once("0"), NOW + 9)) == others


async def test_a_creation_locks_no_other_kept_answers(database_url: str) -> None:
    async with opened(database_url) as store:
        owner = await add_user(store)
        for number in range(3):
            await store.perform(new_guild(owner, once(str(number)), NOW + number))
    looker = await asyncpg.connect(database_url)
    try:
        found = await looker.fetch("SELECT key, xmax::text FROM idempotency_keys ORDER BY key")
    finally:
        await looker.close()
    assert [(row["key"], row["xmax"]) for row in found] == [("0", "0"), ("1", "0"), ("2", "0")]


# --- any history, in both stores ---------------------------------------------------------------------

USERS = tuple(f"00000000-0000-4000-8000-00000000000{number}" for number in range(2))


@pytest.fixture(scope="module")
def both(module_database: str) -> Iterator[Both]:
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(opened(module_database)) as store:
        stores = Both(portal, (MemoryStorage(), store))
        for user in USERS:
            stores.alike(InsertUser(user_id=user, username=user, username_key=user, password_hash="", now_ms=NOW))
        yield stores


STEP = st.tuples(
    st.sampled_from(USERS),
    st.sampled_from(["guild", "channel", "invite", "member"]),
    st.sampled_from(["a", "b", None]),  # key
    st.sampled_from(["x", "y"]),  # what is said
    st.sampled_from([0, 1, LIFE_MS // 2, LIFE_MS]),  # time that passes
)


def creation(what: str, author: Author, guild: str, code: str, now_ms: int, asked: IdempotencyKey | None) -> Any:
    match what:
        case "guild":
            return InsertGuild(author=author, guild_id=new_id(), name="g", now_ms=now_ms, limit=5_000, once=asked)
        case "channel":
            return InsertChannel(
                author=author, channel_id=new_id(), guild_id=guild, name="c", now_ms=now_ms, limit=5_000, once=asked
            )
        case "invite":
            return InsertInvite(
                author=author, code=new_id()[:12], guild_id=guild, max_uses=None, expires_at_ms=None, now_ms=now_ms,
                limit=5_000, once=asked,
            )  # fmt: skip
        case _:
            return AcceptInvite(
                author=author, code=code, role="maintainer", now_ms=now_ms, limit=5_000, once=asked
            )  # fmt: skip


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(history=st.lists(STEP, min_size=1, max_size=20))
def test_any_history_is_that_of_a_plain_table(both: Both, history: list[tuple[str, str, str | None, str, int]]) -> None:
    guild, code, run = new_id(), new_id()[:12], new_id()[:12]
    both.alike(InsertGuild(author=Author(USERS[0]), guild_id=guild, name="g", now_ms=NOW, limit=5_000))
    both.alike(
        InsertInvite(
            author=Author(USERS[0]), code=code, guild_id=guild, max_uses=None, expires_at_ms=None, now_ms=NOW, limit=5_000
        )
    )  # fmt: skip
    table: dict[tuple[str, str], tuple[str, int, Any]] = {}
    now_ms = NOW
    for user, what, key, said, passes in history:
        now_ms += passes
        said = f"{what} {said}"
        asked = once(f"{run}{key}", said) if key is not None else None
        effect = creation(what, Author(user), guild, code, now_ms, asked)
        kept = table.get((user, key)) if key is not None else None
        if kept is not None and now_ms - kept[1] >= LIFE_MS:
            kept = None
        (outcome,) = both.alike(effect)
        if outcome in {ErrorCode.NOT_FOUND, ErrorCode.FORBIDDEN}:
            continue  # no member yet
        if kept is not None:
            assert outcome == (kept[2] if kept[0] == said else ErrorCode.NONCE_REUSED)
        elif key is not None:
            assert type(outcome) is KINDS[what]
            table[user, key] = (said, now_ms, outcome)
    both.alike(ListInvites(guild_id=guild), *[ListGuilds(user_id=user) for user in USERS])
