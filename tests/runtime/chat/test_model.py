"""The model of the terminal chat: what happens while a channel is read is shown, and the channel that was opened last."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from openguild_proto.client.message_list import MessageList
from openguild_proto.gateway.client_events import Delivered
from openguild_proto.hints import PresenceStatus
from openguild_proto.schemas.presence import GuildPresence, MemberPresence
from openguild_runtime.chat.model import ChatModel, ShownChannel
from openguild_runtime.chat.render import message_lines
from openguild_runtime.client import (
    Channel,
    Client,
    LogFollowed,
    LogGone,
    Member,
    NotFound,
    OutcomeUnknown,
    PresenceChanged,
    ReadPosition,
    Session,
    UserTyping,
)
from openguild_runtime.client.log_events import log_event
from tests.support.clocks import Clocks

pytestmark = pytest.mark.anyio
USER = "0198c0de-0000-7000-8000-000000000001"


class Slow(Client):
    """Answers with an empty page, when it is let."""

    def __init__(self) -> None:
        super().__init__("http://127.0.0.1:1")
        self.asked: list[str] = []
        self.go: dict[str, anyio.Event] = {}
        self.told: list[tuple[str, int]] = []
        self.heads = [1, 1, 1]  # of the pages, one after the other

    async def message_list(self, channel_id: str, user_id: str, *, limit: int = 50) -> MessageList:
        self.asked.append(channel_id)
        await self.go.setdefault(channel_id, anyio.Event()).wait()
        return MessageList(user_id, [], self.heads.pop(0))

    def note_read(self, channel_id: str, sequence: int) -> None:
        self.told.append((channel_id, sequence))


def posted(client: Client, channel_id: str, sequence: int, **changed: Any) -> Any:
    event = {
        "schema_version": 1, "event_id": f"${sequence:044}".replace("0", "a"), "origin_server": "s", "room_id": channel_id,
        "event_type": "message", "sender": USER, "origin_ts": 0, "prev_events": [], "auth_events": [], "signatures": {},
        "content": {"author": {"id": USER, "username": "alice"}, "content": f"text {sequence}", "nonce": "n"},
    }  # fmt: skip
    return log_event(client, Delivered(f"channel:{channel_id}", 1, sequence, json.dumps(event | changed).encode()))


def texts(model: ChatModel) -> list[str | None]:
    assert model.shown is not None
    return [message.text for message in model.shown.messages.values()]


async def test_what_comes_while_a_channel_is_read_is_shown() -> None:
    client = Slow()
    model = ChatModel(client)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(model.open, "c")
        await anyio.wait_all_tasks_blocked()
        for sequence in (1, 2, 3):  # the page has the first of them
            model.apply(posted(client, "c", sequence))
        model.apply(posted(client, "another", 9))
        client.go["c"].set()
    assert texts(model) == ["text 2", "text 3"]
    model.apply(posted(client, "c", 4))
    assert texts(model) == ["text 2", "text 3", "text 4"]


@pytest.mark.parametrize("first", ["b", "c"])
async def test_the_channel_that_was_opened_last_is_shown(first: str) -> None:
    client = Slow()
    model = ChatModel(client)
    async with anyio.create_task_group() as tasks:
        for channel_id in ("b", "c"):
            tasks.start_soon(model.open, channel_id)
            await anyio.wait_all_tasks_blocked()
        model.apply(posted(client, "c", 2))
        client.go[first].set()
        await anyio.wait_all_tasks_blocked()
        client.go["b" if first == "c" else "c"].set()
    assert client.asked == ["b", "c"]
    assert (model.open_channel, texts(model)) == ("c", ["text 2"])


async def test_a_message_that_was_taken_back_before_it_came_is_listed_and_counted() -> None:
    """As the server counts it, and as a page shows it."""
    client = Slow()
    model = ChatModel(client)
    model.channels["c"] = ShownChannel("c", "g", "general")
    gone = {"content": {"content": "", "redacted_by": "$later"}}
    model.apply(posted(client, "c", 1, **gone))
    assert (model.channels["c"].unread, model.channels["c"].latest) == (1, 1)
    client.heads = [1]
    client.go["c"] = anyio.Event()
    client.go["c"].set()
    await model.open("c")
    model.apply(posted(client, "c", 2, **gone))
    assert message_lines(model)[0].plain.split() == ["2", "somebody", "deleted"]
    model.apply(posted(client, "c", 3))
    assert texts(model) == [None, "text 3"]
    assert message_lines(model)[0].plain.split() == ["2", "alice", "deleted"]


def names_of(model: ChatModel, *names: str) -> None:
    model.names = {name: name for name in names}
    model.open_channel = "c"
    for name in names:
        model.apply(UserTyping("c", name))


async def test_a_message_ends_the_typing_of_its_author_alone() -> None:
    client = Slow()
    model = ChatModel(client)
    names_of(model, "bob", "carol", USER)
    assert model.typing == f"bob, carol, {USER} are writing"
    model.apply(posted(client, "c", 1))
    assert model.typing == "bob, carol are writing"
    model.apply(UserTyping("c", "carol", ""))
    model.apply(UserTyping("another", "dave"))
    assert model.typing == "bob is writing"


async def test_typing_is_shown_for_five_seconds() -> None:
    clocks = Clocks()
    model = ChatModel(Client("http://127.0.0.1:1", sources=clocks.sources))
    names_of(model, "alice", "bob", "carol", "dave")
    assert model.typing == "several people are writing"
    assert 4 < (model.typing_changes_in() or 0) <= 5
    clocks.passed += 5
    assert (model.typing, model.typing_changes_in()) == ("", None)


def followed(after: int, *, epoch: int = 1) -> LogFollowed:
    return LogFollowed("channel:c", epoch, after, after, False)


async def test_a_channel_that_is_heard_from_behind_its_page_on_is_read_again() -> None:
    client = Slow()
    client.heads = [1, 2, 2]
    model = ChatModel(client)
    client.go["c"] = anyio.Event()
    client.go["c"].set()
    await model.open("c")
    assert not model.note_followed(followed(1))
    assert model.note_followed(followed(2)), "event 2 comes in no page and from nobody"
    await model.reopen()
    await model.reopen()
    assert client.asked == ["c", "c"]
    assert model.note_followed(followed(1, epoch=7)), "it is another log"
    await model.reopen()
    assert not model.note_followed(followed(1, epoch=7))


async def test_a_channel_that_began_anew_is_told() -> None:
    """What was read may not be there any more; of another channel nothing is seen."""
    client = Slow()
    model = ChatModel(client)
    for channel, told in (("another", False), ("c", True)):
        client.go[channel] = anyio.Event()
        client.go[channel].set()
        await model.open(channel)
        model.apply(followed(1, epoch=7))
        assert ("newest messages may be missing" in model.status) is told


async def test_a_page_from_before_the_channel_was_heard_is_read_again() -> None:
    client = Slow()
    client.heads = [1, 3]
    model = ChatModel(client)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(model.open, "c")
        await anyio.wait_all_tasks_blocked()
        assert not model.note_followed(followed(2))
        client.go["c"].set()
    assert (client.asked, model.shown is not None and model.shown.head) == (["c", "c"], 3)


GUILD = "0198c0de-0000-7000-8000-000000000009"


class Guilds(Client):
    """Has one guild with one channel; each list waits until it is let."""

    def __init__(self) -> None:
        super().__init__("http://127.0.0.1:1")
        self.go = anyio.Event()
        self.is_gone = False
        self.present: list[str] = []

    async def request(self, method: str, path: str, body: Any = None, *, authorized: bool = True) -> Any:
        if self.is_gone:
            raise NotFound(404, "not_found", "gone")
        return {"name": "tea"}

    async def channels_at(self, guild_id: str) -> tuple[int, list[Channel]]:
        await self.go.wait()
        return 5, [Channel("c", guild_id, "general", "2026-01-01T00:00:00Z", 1)]

    async def members(self, guild_id: str) -> AsyncIterator[Member]:  # type: ignore[override]  # a generator is an iterator
        yield Member(guild_id, USER, "alice", "guest", "2026-01-01T00:00:00Z")

    async def unread(self) -> AsyncIterator[ReadPosition]:  # type: ignore[override]  # a generator is an iterator
        for position in ():
            yield position

    async def presence(self, guild_id: str) -> GuildPresence:
        await self.go.wait()
        return GuildPresence(True, tuple(MemberPresence(user, PresenceStatus.ONLINE) for user in self.present))


def of_guild(client: Client, sequence: int, event_type: str, **content: Any) -> Any:
    event = {
        "schema_version": 1, "event_id": "$e", "origin_server": "s", "room_id": GUILD, "event_type": event_type,
        "sender": USER, "origin_ts": 0, "prev_events": [], "auth_events": [], "signatures": {}, "content": content,
    }  # fmt: skip
    return log_event(client, Delivered(f"guild:{GUILD}", 1, sequence, json.dumps(event).encode()))


def begins(after: int, *, recovered: bool = True) -> LogFollowed:
    return LogFollowed(f"guild:{GUILD}", 1, after, after, recovered)


async def test_a_guild_that_is_followed_behind_its_lists_is_read() -> None:
    client = Guilds()
    client.go.set()
    model = ChatModel(client)
    model.apply(begins(5))
    assert (model.guilds_to_add(), model.guilds_to_add()) == ([GUILD], [])
    await model.add_guild(GUILD)
    assert (model.guilds, [one.name for one in model.channels.values()]) == ({GUILD: "tea"}, ["general"])
    model.apply(of_guild(client, 6, "channel.created", channel_id="d", name="news"))
    for event, wanted in ((begins(6), []), (begins(7), [GUILD]), (begins(6, recovered=False), [GUILD])):
        model.apply(event)
        assert model.guilds_to_add() == wanted


async def test_what_is_heard_of_a_guild_while_it_is_read_comes_behind_its_lists() -> None:
    client = Guilds()
    model = ChatModel(client)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(model.load_guild, GUILD)
        await anyio.wait_all_tasks_blocked()
        model.apply(of_guild(client, 6, "channel.updated", channel_id="c", name="renamed"))
        model.apply(of_guild(client, 7, "channel.created", channel_id="d", name="news"))
        client.go.set()
    assert [one.name for one in model.channels.values()] == ["renamed", "news"]


async def test_a_guild_that_is_left_while_it_is_read_is_not_shown() -> None:
    client = Guilds()
    model = ChatModel(client)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(model.load_guild, GUILD)
        await anyio.wait_all_tasks_blocked()
        model.apply(LogGone(f"guild:{GUILD}", "access_lost"))
        client.go.set()
    assert (model.guilds, model.channels) == ({}, {})
    client.is_gone = True
    await model.add_guild(GUILD)
    assert model.guilds == {}


async def test_who_comes_and_goes_while_presence_is_read_counts() -> None:
    client = Guilds()
    client.present = ["alice", "bob"]
    model = ChatModel(client)
    model.guilds[GUILD], model.user_id = "tea", "erin"
    model.online = {"dave"}
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(model.read_presence)
        await anyio.wait_all_tasks_blocked()
        model.apply(PresenceChanged("bob", PresenceStatus.OFFLINE))
        model.apply(PresenceChanged("carol", PresenceStatus.IDLE))
        client.go.set()
    assert model.online == {"alice", "carol", "erin"}, "oneself too: nobody is told their own"


async def test_a_guild_that_could_not_be_read_is_wanted() -> None:
    client = Client("http://127.0.0.1:1", retry_secs=-1, session=Session("t", "r"))
    model = ChatModel(client)
    with pytest.raises(OutcomeUnknown):
        await model.add_guild(GUILD)
    assert (model.guilds_to_add(), model.guilds_to_add()) == ([GUILD], [])


class Counting(Client):
    """Has unread counts, when it is let."""

    def __init__(self, *positions: ReadPosition) -> None:
        super().__init__("http://127.0.0.1:1")
        self.go = anyio.Event()
        self.positions = positions

    async def unread(self) -> AsyncIterator[ReadPosition]:  # type: ignore[override]  # a generator is an iterator
        await self.go.wait()
        for position in self.positions:
            yield position


def counts(model: ChatModel) -> tuple[int, int]:
    return model.channels["c"].unread, model.channels["c"].latest


async def test_messages_between_the_counts_and_the_log_are_counted() -> None:
    client = Counting(ReadPosition("c", 1, 4, 3, 0))
    model = ChatModel(client)
    model.channels["c"] = ShownChannel("c", "g", "general", unread=1, latest=2, head=2)
    model.apply(LogFollowed("channel:c", 1, 2, 2, True))
    assert not model.wants_unread()
    model.apply(LogFollowed("channel:c", 1, 4, 4, True))
    assert [model.wants_unread(), model.wants_unread()] == [True, False]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(model.read_unread)
        await anyio.wait_all_tasks_blocked()
        model.apply(posted(client, "c", 5, sender="bob"))
        client.go.set()
    assert counts(model) == (4, 5)
    model.apply(posted(client, "c", 6, sender="bob"))
    assert counts(model) == (5, 6)


async def test_the_counts_of_a_log_that_begins_anew_are_read_again() -> None:
    client = Counting(ReadPosition("c", 0, 2, 2, 0))
    client.go.set()
    model = ChatModel(client)
    model.channels["c"] = ShownChannel("c", "g", "general", unread=7, latest=90, head=90)
    model.apply(followed(2, epoch=5))
    assert model.wants_unread()
    await model.read_unread()
    model.apply(posted(client, "c", 3, sender="bob"))
    assert counts(model) == (3, 3)
