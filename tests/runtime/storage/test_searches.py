"""Random histories: a search in either store finds what the reader may read and what says so, and nothing else (PROTOCOL 7.11)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import hypothesis.strategies as st
import pytest
from anyio.from_thread import start_blocking_portal
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from msgspec.structs import replace

from openguild_proto.effects.accounts import InsertUser
from openguild_proto.effects.channels import DeleteChannel, InsertChannel
from openguild_proto.effects.guilds import DeleteGuild, InsertGuild, RemoveMember
from openguild_proto.effects.roles import GrantChannelRole, GrantGuildRole, GrantServerRole
from openguild_proto.effects.search import IndexMessages, SearchHit, SearchMessages
from openguild_proto.policy.search import Has, SearchConditions, parse_phrases
from openguild_proto.records import Author, ClearReactions, Edit, Pin, React, Redact
from openguild_runtime.storage.memory import MemoryStorage
from openguild_runtime.storage.postgres import search
from tests.runtime.storage.test_message_histories import Both, opened
from tests.support.deeds import DAY, NOW, new_id
from tests.support.messages import changing, post

# What a text is made of, and searches for: words of several scripts, joined by spaces, and runs without spaces.
WORDS = ("tea", "teapot", "Straße", "кофе", "שלום", "سلام", "👋", "don't", "c++", "x" * 70)
RUNS = ("東京都", "京都", "日本語のテスト", "한국어를", "ภาษาไทย")
TEXTS = st.lists(st.sampled_from((*WORDS, *RUNS)), min_size=1, max_size=4).map(" ".join)
LINK, REPLIED = " https://example.com/x", "reply"
PEOPLE = range(3)
UNSHRUNK = (Phase.explicit, Phase.reuse, Phase.generate)  # each step is slow: shrinking takes minutes


@dataclass
class Said:
    """A message as the model has it."""

    channel_id: str
    author_id: str
    event_id: str
    created_at_ms: int
    text: str
    is_reply: bool = False
    mentions: bool = False
    is_gone: bool = False
    is_pinned: bool = False
    reacted: set[str] = field(default_factory=set)

    def says(self, word: str) -> bool:
        """Compare in another way than the stores: by spaces, or anywhere in a run."""
        text = self.text.casefold()
        return word in text if word in RUNS else word.casefold() in text.split()

    def has(self, what: Has) -> bool:
        return {
            Has.LINK: "https://" in self.text,
            Has.REPLY: self.is_reply,
            Has.MENTION: self.mentions,
            Has.PIN: self.is_pinned,
            Has.REACTION: bool(self.reacted),
        }[what]


def machine(both: Both) -> type[RuleBasedStateMachine]:
    class Searches(RuleBasedStateMachine):
        """One guild with an owner, and people who come and go; another guild; an overseer."""

        @initialize()
        def begin(self) -> None:
            self.owner, self.overseer = self._user(), self._user()
            self.people = [self._user() for _ in PEOPLE]
            both.alike(GrantServerRole(user_id=self.overseer, role="moderator", now_ms=NOW))
            self.members: dict[str, set[str]] = {}
            self.channels: dict[str, str] = {}
            self.explicit: dict[str, set[str]] = {}
            self.said: list[Said] = []
            self.guilds = [self._guild(), self._guild()]
            for guild_id in self.guilds:
                self.add_channel(self.guilds.index(guild_id))

        def _user(self) -> str:
            user_id = new_id()
            both.alike(
                InsertUser(user_id=user_id, username=user_id, username_key=user_id, password_hash="", now_ms=NOW)
            )
            return user_id

        def _guild(self) -> str:
            guild_id = new_id()
            both.alike(InsertGuild(author=Author(self.owner), guild_id=guild_id, name="guild", now_ms=NOW))
            self.members[guild_id] = {self.owner}
            return guild_id

        # --- what happens ------------------------------------------------------------------------------

        @rule(guild=st.integers(0, 1))
        def add_channel(self, guild: int) -> None:
            channel_id = new_id()
            both.alike(
                InsertChannel(
                    author=Author(self.owner),
                    channel_id=channel_id,
                    guild_id=self.guilds[guild],
                    name=channel_id[:8],
                    now_ms=NOW,
                )
            )
            self.channels[channel_id] = self.guilds[guild]
            self.explicit[channel_id] = {self.owner}

        @rule(guild=st.integers(0, 1), person=st.sampled_from(PEOPLE))
        def join(self, guild: int, person: int) -> None:
            user_id = self.people[person]
            both.alike(GrantGuildRole(guild_id=self.guilds[guild], user_id=user_id, role="member", now_ms=NOW))
            self.members[self.guilds[guild]].add(user_id)

        @rule(guild=st.integers(0, 1), person=st.sampled_from(PEOPLE), leaves=st.booleans())
        def go(self, guild: int, person: int, leaves: bool) -> None:
            guild_id, user_id = self.guilds[guild], self.people[person]
            author = Author(user_id if leaves else self.owner)
            both.alike(RemoveMember(author=author, guild_id=guild_id, user_id=user_id, now_ms=NOW))
            if user_id in self.members[guild_id]:
                self.members[guild_id].discard(user_id)
                for channel_id, of in self.channels.items():
                    if of == guild_id:
                        self.explicit[channel_id].discard(user_id)

        @rule(channel=st.integers(0, 5), person=st.sampled_from(PEOPLE))
        def let_in(self, channel: int, person: int) -> None:
            channel_id, user_id = self._channel(channel), self.people[person]
            both.alike(GrantChannelRole(channel_id=channel_id, user_id=user_id, role="guest", now_ms=NOW))
            self.explicit[channel_id].add(user_id)

        @rule(channel=st.integers(0, 5))
        def delete_channel(self, channel: int) -> None:
            if len(self.channels) > 2:
                channel_id = self._channel(channel)
                both.alike(DeleteChannel(author=Author(self.owner), channel_id=channel_id, now_ms=NOW))
                self._forget({channel_id})

        @rule()
        def delete_guild(self) -> None:
            both.alike(DeleteGuild(author=Author(self.owner), guild_id=self.guilds[1]))
            self._forget({channel_id for channel_id, of in self.channels.items() if of == self.guilds[1]})
            self.guilds[1] = self._guild()
            self.add_channel(1)

        def _forget(self, gone: set[str]) -> None:
            self.said = [message for message in self.said if message.channel_id not in gone]
            for channel_id in gone:
                del self.channels[channel_id], self.explicit[channel_id]

        @rule(channel=st.integers(0, 5), text=TEXTS, ago=st.sampled_from((0, 1, 3_600_000, DAY, 40 * DAY, 3_000 * DAY)),
              person=st.integers(0, 3), link=st.booleans(), mentions=st.booleans())  # fmt: skip
        def post(self, channel: int, text: str, ago: int, person: int, link: bool, mentions: bool) -> None:
            channel_id = self._channel(channel)
            author = self.owner if person == 3 else self.people[person]
            if author not in self.members[self.channels[channel_id]]:
                author = self.owner
            self._append(channel_id, author, text + LINK * link, ago, mentions=mentions)

        @rule(message=st.integers(0, 20), text=TEXTS)
        def answer(self, message: int, text: str) -> None:
            if (target := self._message(message)) is not None and not target.is_gone:
                self._append(target.channel_id, self.owner, text, 0, target.event_id)

        def _append(
            self,
            channel_id: str,
            author: str,
            text: str,
            ago: int,
            reply_to: str | None = None,
            *,
            mentions: bool = False,
        ) -> None:
            mentioned = (self.owner,) if mentions else ()
            effect = replace(post(channel_id, author, text, reply_to=reply_to, mentions=mentioned), now_ms=NOW - ago)
            both.alike(effect)
            is_reply = reply_to is not None
            said = Said(channel_id, author, effect.event_id, NOW - ago, text, is_reply=is_reply, mentions=mentions)
            self.said.append(said)

        @rule(message=st.integers(0, 20), text=TEXTS)
        def edit(self, message: int, text: str) -> None:
            target = self._message(message)
            if target is not None and not target.is_gone and self._may_read(target.author_id, target.channel_id):
                (outcome,) = both.alike(changing(target.channel_id, target.author_id, Edit(target.event_id, text)))
                if hasattr(outcome, "event"):  # they may have become a guest
                    target.text = text

        @rule(message=st.integers(0, 20))
        def redact(self, message: int) -> None:
            if (target := self._message(message)) is not None:
                both.alike(changing(target.channel_id, self.owner, Redact(target.event_id, "why")))
                target.is_gone = True

        @rule(message=st.integers(0, 20), pins=st.booleans())
        def pin(self, message: int, pins: bool) -> None:
            if (target := self._message(message)) is not None and not target.is_gone:
                both.alike(changing(target.channel_id, self.owner, Pin(target.event_id, pins=pins)))
                target.is_pinned = pins

        @rule(message=st.integers(0, 20), adds=st.booleans())
        def react(self, message: int, adds: bool) -> None:
            if (target := self._message(message)) is not None and not target.is_gone:
                both.alike(changing(target.channel_id, self.owner, React(target.event_id, "+1", adds=adds)))
                (target.reacted.add if adds else target.reacted.discard)(self.owner)

        @rule(message=st.integers(0, 20))
        def clear(self, message: int) -> None:
            if (target := self._message(message)) is not None and not target.is_gone:
                both.alike(changing(target.channel_id, self.owner, ClearReactions(target.event_id)))
                target.reacted.clear()

        @rule(everywhere=st.booleans())
        def index(self, everywhere: bool) -> None:
            both.each(IndexMessages(everywhere=everywhere))

        # --- what is found -----------------------------------------------------------------------------

        @rule(word=st.sampled_from((*WORDS, *RUNS)), reader=st.integers(0, 4), looked_through=st.booleans(),
              has=st.sets(st.sampled_from(Has), max_size=2), by_owner=st.booleans(), where=st.integers(0, 8),
              since=st.sampled_from((None, NOW - DAY)), until=st.sampled_from((None, NOW, NOW - 3_600_000)))  # fmt: skip
        def find(
            self, word: str, reader: int, looked_through: bool, has: set[Has], by_owner: bool, where: int,
            since: int | None, until: int | None,
        ) -> None:  # fmt: skip
            places = {0: (), 1: (self.guilds[0],), 2: (self.guilds[1], new_id())}.get(where, (self._channel(where),))
            wanted = SearchConditions(
                phrases=parse_phrases(f'"{word}"'),
                author_id=self.owner if by_owner else None,
                places=places,
                since_ms=since,
                until_ms=until,
                has=frozenset(has),
            )
            self._expect(wanted, [*self.people, self.owner, self.overseer][reader], word, looked_through)

        @invariant()
        def nothing_is_shown_to_strangers(self) -> None:
            for word in ("tea", "京都"):
                self._expect(
                    SearchConditions(phrases=parse_phrases(f'"{word}"')), self.people[0], word, looked_through=False
                )

        def _expect(self, wanted: SearchConditions, reader: str, word: str, looked_through: bool) -> None:
            expected = [
                message
                for message in self.said
                if not message.is_gone
                and self._may_read(reader, message.channel_id)
                and self._is_asked(wanted, reader, message.channel_id)
                and message.says(word)
                and wanted.author_id in {None, message.author_id}
                and (wanted.since_ms is None or message.created_at_ms >= wanted.since_ms)
                and (wanted.until_ms is None or message.created_at_ms < wanted.until_ms)
                and all(message.has(what) for what in wanted.has)
            ]
            found: list[SearchHit] = []
            search.SCAN_MOST = 1_000 if looked_through else 0
            while True:  # in pages of three
                behind = found[-1].place if found else None
                (page,) = both.alike(SearchMessages(reader_id=reader, wanted=wanted, limit=3, behind=behind))
                found += page
                if len(page) < 3:
                    break
            assert {hit.state.event_id for hit in found} == {message.event_id for message in expected}
            assert len(found) == len(expected)
            places = [(hit.state.created_at_ms, hit.channel.channel_id, hit.state.sequence) for hit in found]
            assert places == sorted(places, reverse=True)

        def _may_read(self, reader: str, channel_id: str) -> bool:
            is_member = reader in self.members[self.channels[channel_id]] or reader in self.explicit[channel_id]
            return is_member or reader == self.overseer

        def _is_asked(self, wanted: SearchConditions, reader: str, channel_id: str) -> bool:
            if wanted.places:
                return channel_id in wanted.places or self.channels[channel_id] in wanted.places
            return reader != self.overseer  # who is in no guild

        def _channel(self, number: int) -> str:
            return list(self.channels)[number % len(self.channels)]

        def _message(self, number: int) -> Said | None:
            return self.said[-1 - number % len(self.said)] if self.said else None

    return Searches


@pytest.fixture(scope="module")
def both(module_database: str) -> Iterator[Both]:
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(opened(module_database)) as store:
        yield Both(portal, (MemoryStorage(), store))


def test_a_search_finds_what_the_reader_may_read_and_nothing_else(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "SCAN_MOST", search.SCAN_MOST)
    run_state_machine_as_test(
        machine(both),
        settings=settings(
            max_examples=12,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=UNSHRUNK,
        ),
    )


# Letters of many scripts, marks, what is invisible, what PostgreSQL quotes, and what counts as no letter.
CHARACTERS = st.sampled_from([*"aAbBé\u0301ﬁßİıΣς'\\\":&|!()*<> /-_.1２", *"東京都が\u3099アｱ한ก\u0e34", *"سلا\u064f\u0640",
                              "👋", "👋🏽", "🇩🇪",
                              "\u200d", "\ufe0f", "\u00ad", "\u202e", "\u0300"])  # fmt: skip
WRITTEN = st.lists(CHARACTERS, min_size=1, max_size=12).map("".join)


@pytest.fixture(scope="module")
def room(both: Both) -> tuple[str, str]:
    owner, guild_id, channel_id = new_id(), new_id(), new_id()
    both.alike(InsertUser(user_id=owner, username=owner, username_key=owner, password_hash="", now_ms=NOW))
    both.alike(InsertGuild(author=Author(owner), guild_id=guild_id, name="guild", now_ms=NOW))
    both.alike(InsertChannel(author=Author(owner), channel_id=channel_id, guild_id=guild_id, name="c", now_ms=NOW))
    return owner, channel_id


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(texts=st.lists(WRITTEN, min_size=1, max_size=4), query=WRITTEN)
def test_both_stores_compare_every_text_alike(both: Both, room: tuple[str, str], texts: list[str], query: str) -> None:
    """Each query is a piece of a text at times, and is asked of indexed messages and of those behind the index."""
    owner, channel_id = room
    for text in texts:
        both.alike(post(channel_id, owner, text))
    both.each(IndexMessages(everywhere=True))
    both.alike(post(channel_id, owner, query))
    for asked in (query, texts[0], texts[0][:3], f'"{texts[0]}"', f"{query} {texts[-1][-3:]}"):
        wanted = SearchConditions(phrases=parse_phrases(asked), places=(channel_id,))
        if wanted.phrases:
            (found,) = both.alike(SearchMessages(reader_id=owner, wanted=wanted, limit=50))
            if asked in (query, texts[0]):
                assert found, "a text finds itself"
