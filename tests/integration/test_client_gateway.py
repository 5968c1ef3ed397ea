"""The client's gateway against real servers: typed events, handlers, commands, restarts of both sides."""

from __future__ import annotations

import signal
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.to_thread
import pytest

from openguild_runtime.client import (
    ApiError,
    ChannelCreated,
    ChannelRead,
    Client,
    Connected,
    Event,
    Forbidden,
    Gateway,
    GuildJoined,
    LogFollowed,
    LogGone,
    MemberJoined,
    MessageEdited,
    MessagePosted,
    MessageRedacted,
    NotFound,
    PresenceChanged,
    ReactionAdded,
    ReadPosition,
    ResumePosition,
    Unauthorized,
    UserTyping,
)
from openguild_runtime.embedded import EmbeddedNats
from tests.support.chat import PASSWORD
from tests.support.server import ServerProcess
from tests.support.waiting import eventually

pytestmark = pytest.mark.anyio
E = TypeVar("E", bound=Event)


@pytest.fixture
async def two(server: ServerProcess) -> AsyncIterator[tuple[Client, Client]]:
    """Yield two clients that are logged in."""
    async with Client(server.base_url) as alice, Client(server.base_url) as bob:
        await entered(alice)
        await entered(bob)
        yield alice, bob


async def entered(client: Client) -> str:
    """Log in with a new account; return its name."""
    name = f"client-{uuid.uuid4().hex[:12]}"
    await client.register(name, PASSWORD)
    await client.login(name, PASSWORD)
    return name


async def invited(alice: Client, bob: Client, guild: str) -> None:
    await bob.accept_invite((await alice.create_invite(guild)).code)


async def heard(gateway: Gateway, kind: type[E], **members: Any) -> E:
    """Return the next event of this type with these members."""
    with anyio.fail_after(20):
        async for event in gateway:
            if isinstance(event, kind) and all(getattr(event, name) == value for name, value in members.items()):
                return event
    raise AssertionError("the gateway ended")


async def test_a_guild_that_is_joined_is_followed_with_its_channels(two: tuple[Client, Client]) -> None:
    alice, bob = two
    guild = (await alice.create_guild("tea")).guild_id
    channel = (await alice.create_channel(guild, "general")).channel_id
    async with bob.gateway() as events:
        await heard(events, Connected)
        await heard(events, LogFollowed)
        await invited(alice, bob, guild)
        assert (await heard(events, GuildJoined)).content.name == "tea"
        await heard(events, LogFollowed, log=f"channel:{channel}")
        await alice.post(channel, "ping")
        message = await heard(events, MessagePosted)
        assert (message.text, message.channel_id) == ("ping", channel)
        news = (await alice.create_channel(guild, "news")).channel_id
        await alice.post(news, "in a channel that is new")
        assert (await heard(events, ChannelCreated)).content.name == "news"
        assert (await heard(events, MessagePosted)).text == "in a channel that is new"


async def test_what_is_done_with_messages(two: tuple[Client, Client]) -> None:
    alice, bob = two
    guild = (await alice.create_guild("tea")).guild_id
    channel = (await alice.create_channel(guild, "general")).channel_id
    await invited(alice, bob, guild)
    async with bob.gateway() as his, AsyncExitStack() as later:
        await heard(his, LogFollowed, log=f"channel:{channel}")
        hers = await later.enter_async_context(alice.gateway())  # sent once, only to those who already listen
        await heard(hers, LogFollowed, log=f"channel:{channel}")
        assert (await heard(his, PresenceChanged)).status.value == "online"
        await alice.typing(channel, "hel")
        assert (await heard(his, UserTyping)).preview == "hel"
        posted = await alice.post(channel, "hello")
        message = await heard(his, MessagePosted)
        assert (message.message_id, message.sequence) == (posted.event_id, posted.sequence)
        await message.reply("hello back")
        await message.react("👋")
        assert (await message.mark_read()).last_read_sequence == message.sequence
        reply = await heard(hers, MessagePosted, text="hello back")
        assert reply.content.reply_to == posted.event_id
        assert (message.is_own, reply.is_own) == (False, False)
        assert (await heard(hers, ReactionAdded)).content.emoji == "👋"
        with pytest.raises(Forbidden):
            await reply.edit("not hers")
        assert (await heard(his, MessagePosted)).is_own
        await alice.edit(channel, posted.event_id, "hello you")
        assert (await heard(his, MessageEdited)).text == "hello you"
        await alice.redact(channel, posted.event_id)
        assert (await heard(his, MessageRedacted)).message_id == posted.event_id
        with pytest.raises(NotFound):
            await alice.post(str(uuid.uuid4()), "nowhere")
        [now, _] = await bob.messages(channel)
        assert (now.content, now.reply_count) == (None, 1)


async def position_of(client: Client, channel: str) -> int:
    [position] = [line async for line in client.unread() if line.channel_id == channel]
    return position.last_read_sequence


async def test_read_positions_are_sent_seldom_and_only_the_newest(two: tuple[Client, Client]) -> None:
    alice, bob = two
    guild = (await alice.create_guild("tea")).guild_id
    channel = (await alice.create_channel(guild, "general")).channel_id
    await invited(alice, bob, guild)
    for number in range(1, 9):
        await alice.post(channel, str(number))
    bob.note_read(channel, 1)  # before the gateway is open
    async with bob.gateway() as his:
        await heard(his, LogFollowed, log=f"user:{bob.user_id}")
        await eventually(lambda: position_of(bob, channel), what="the first position")
        began = anyio.current_time()
        for sequence in range(2, 8):
            bob.note_read(channel, sequence)
        with pytest.raises(NotFound):
            await bob.mark_read(str(uuid.uuid4()), 1)
        told = [(await heard(his, ChannelRead)).content.last_read_sequence]
        if told == [1]:  # it may have been sent before his log was followed
            told = [(await heard(his, ChannelRead)).content.last_read_sequence]
        assert told == [7], "and no one between"
        positions = list[ReadPosition]()

        async def mark(sequence: int) -> None:
            positions.append(await bob.mark_read(channel, sequence))

        async with anyio.create_task_group() as tasks:
            for sequence in (8, 3, 5):
                tasks.start_soon(mark, sequence)
        assert {(position.last_read_sequence, position.unread) for position in positions} == {(8, 0)}
        assert anyio.current_time() - began > 2, "a second between two"


async def test_positions_of_a_session_that_ends_are_not_sent(two: tuple[Client, Client]) -> None:
    alice, _ = two
    guild = (await alice.create_guild("tea")).guild_id
    channel = (await alice.create_channel(guild, "general")).channel_id
    async with alice.gateway() as events:
        await heard(events, Connected)
        alice.note_read(channel, 1)
        alice.note_read(str(uuid.uuid4()), 1)
        await alice.logout()
        with pytest.raises(Unauthorized):
            await heard(events, MessagePosted)
        with pytest.raises(RuntimeError, match="log in"):
            await alice.mark_read(channel, 2)


async def test_a_logout_while_channels_are_listed_is_no_failure(two: tuple[Client, Client]) -> None:
    alice, _ = two
    guild = (await alice.create_guild("tea")).guild_id
    async with alice.gateway() as events:
        await heard(events, Connected)
        events.follow(f"guild:{guild}")
        await alice.logout()
        assert events._logs is not None
        await events._list_channels(events._logs, guild)


async def test_a_removed_member_is_told_and_hears_nothing_more(two: tuple[Client, Client]) -> None:
    alice, bob = two
    guild = (await alice.create_guild("tea")).guild_id
    channel = (await alice.create_channel(guild, "general")).channel_id
    await invited(alice, bob, guild)
    bob_id = (await bob.request("GET", "/users/me"))["user_id"]
    assert bob.session is not None
    async with bob.gateway() as events:
        await heard(events, LogFollowed, log=f"channel:{channel}")
        assert f"channel:{channel}" not in bob.session.positions, "not handled before the next is taken"
        await alice.send("DELETE", f"/guilds/{guild}/members/{bob_id}")
        gone = {(await heard(events, LogGone)).log for _ in range(2)}
    assert gone == {f"guild:{guild}", f"channel:{channel}"}
    assert list(bob.session.positions) == [f"user:{bob_id}"]


async def test_a_program_goes_on_where_it_stopped(
    two: tuple[Client, Client], server: ServerProcess, tmp_path: Path
) -> None:
    """The first run handles one message and fails at the next; meanwhile a channel is created and written to."""
    alice, _ = two
    guild = (await alice.create_guild("tea")).guild_id
    channel = (await alice.create_channel(guild, "general")).channel_id
    file = tmp_path / "bot.json"
    async with Client(server.base_url, session_file=file) as bot:
        name = await entered(bot)
        await invited(alice, bot, guild)
        with pytest.raises(ZeroDivisionError):
            async with bot.gateway() as events:
                await heard(events, LogFollowed, log=f"channel:{channel}")
                for text in ("one", "two"):
                    await alice.post(channel, text)
                await heard(events, MessagePosted, text="one")
                await heard(events, MessagePosted, text="two")
                raise ZeroDivisionError
    assert file.stat().st_mode & 0o777 == 0o600
    news = (await alice.create_channel(guild, "news")).channel_id
    for where, text in ((channel, "three"), (news, "four"), (channel, "five")):
        await alice.post(where, text)
    async with Client(server.base_url, session_file=file) as bot:
        await bot.enter(name, "the kept session needs no password")
        async with bot.gateway() as events:
            texts = [(await heard(events, MessagePosted)).text for _ in range(4)]
    assert sorted(texts) == ["five", "four", "three", "two"]
    assert [text for text in texts if text != "four"] == ["two", "three", "five"]


async def test_handlers_are_called_in_order_and_may_fail(
    two: tuple[Client, Client], caplog: pytest.LogCaptureFixture
) -> None:
    alice, bob = two
    guild = (await alice.create_guild("tea")).guild_id
    channel = (await alice.create_channel(guild, "general")).channel_id
    followed, seen = anyio.Event(), list[str]()

    @bob.on(LogFollowed)
    async def ready(event: LogFollowed) -> None:
        if event.log == f"channel:{channel}":
            followed.set()

    @bob.on(MessagePosted)
    async def answer(message: MessagePosted) -> None:
        seen.append(message.text)
        if message.text == "fail":
            raise LookupError("on purpose")
        if message.text == "ping":
            await message.reply("pong")

    await invited(alice, bob, guild)
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bob.listen)
            await followed.wait()
            async with alice.gateway() as events:
                await heard(events, LogFollowed, log=f"channel:{channel}")
                for text in ("one", "fail", "ping"):
                    await alice.post(channel, text)
                await heard(events, MessagePosted, text="pong")
            tasks.cancel_scope.cancel()
    assert seen[:3] == ["one", "fail", "ping"]
    assert "the handler answer failed on MessagePosted" in caplog.text


async def test_it_moves_to_another_replica_with_its_commands(
    new_database: Callable[[], str], nats_server: EmbeddedNats, tmp_path: Path
) -> None:
    url = new_database()
    first, second = (ServerProcess(tmp_path, DATABASE_URL=url, NATS__URL=nats_server.url) for _ in range(2))
    with first, second.start():
        async with Client((first.base_url, second.base_url), retry_secs=30) as client:
            await entered(client)
            guild = (await client.create_guild("tea")).guild_id
            channel = (await client.create_channel(guild, "general")).channel_id
            async with client.gateway() as events:
                await heard(events, LogFollowed, log=f"channel:{channel}")
                await client.post(channel, "0")
                await anyio.to_thread.run_sync(first.stop, signal.SIGKILL)
                async with anyio.create_task_group() as tasks:
                    for number in range(1, 4):
                        tasks.start_soon(client.post, channel, str(number))
                    texts = [(await heard(events, MessagePosted)).text for _ in range(4)]
    assert texts[0] == "0"
    assert sorted(texts) == ["0", "1", "2", "3"]


async def test_a_program_that_takes_nothing_misses_nothing(two: tuple[Client, Client]) -> None:
    """The backlog is larger than the client holds; its own commands are answered all the while."""
    alice, bob = two
    guild = (await alice.create_guild("tea")).guild_id
    channel = (await alice.create_channel(guild, "general")).channel_id
    await invited(alice, bob, guild)
    async with bob.gateway() as events:
        await heard(events, LogFollowed, log=f"channel:{channel}")
        for number in range(120):
            await alice.post(channel, str(number))
            if number % 40 == 0:
                await bob.mark_read(channel, 1)
        texts = [(await heard(events, MessagePosted)).text for _ in range(120)]
    assert texts == [str(number) for number in range(120)]
    assert bob.session is not None
    assert bob.session.positions[f"channel:{channel}"] == ResumePosition(1, 120)


async def test_two_gateways_of_one_client_are_refused(two: tuple[Client, Client]) -> None:
    alice, _ = two
    async with alice.gateway(everything=False) as events:
        assert isinstance(await anext(events), Connected)
        with pytest.raises(RuntimeError, match="open"):
            async with alice.gateway():
                pass
        me = (await alice.request("GET", "/users/me"))["user_id"]
        events.follow(f"user:{me}", tail=1)
        assert (await heard(events, LogFollowed)).log == f"user:{me}"


async def test_members_are_told_of_each_other(two: tuple[Client, Client]) -> None:
    alice, bob = two
    guild = (await alice.create_guild("tea")).guild_id
    async with alice.gateway() as events:
        await heard(events, LogFollowed, log=f"guild:{guild}")
        await invited(alice, bob, guild)
        joined = await heard(events, MemberJoined)
        assert joined.content.invite_id is not None


async def test_a_command_outlives_the_token_that_it_came_with(
    new_database: Callable[[], str], nats_server: EmbeddedNats, tmp_path: Path
) -> None:
    """Tokens expire quickly and are not renewed ahead, so commands meet expired ones."""
    server = ServerProcess(tmp_path, DATABASE_URL=new_database(), SESSION__ACCESS_TTL_SECS=2)
    with server.start():
        async with Client(server.base_url, retry_secs=30) as client:
            await entered(client)
            guild = (await client.create_guild("tea")).guild_id
            channel = (await client.create_channel(guild, "general")).channel_id
            async with client.gateway() as events:
                await heard(events, LogFollowed, log=f"channel:{channel}")
                ends = anyio.current_time() + 6
                count = 0
                while anyio.current_time() < ends:
                    await client.post(channel, str(count))
                    count += 1
                texts = [(await heard(events, MessagePosted)).text for _ in range(count)]
    assert texts == [str(number) for number in range(count)]


async def test_a_kept_session_of_another_user_is_not_used(
    two: tuple[Client, Client], server: ServerProcess, tmp_path: Path
) -> None:
    file = tmp_path / "bot.json"
    async with Client(server.base_url, session_file=file) as first:
        name = await entered(first)
        assert first.session is not None
        first.session.positions["user:x"] = ResumePosition(1, 1)
    async with Client(server.base_url) as other:
        others_name = await entered(other)
    async with Client(server.base_url, session_file=file) as again:
        await again.enter(name.upper(), "not needed")
        await again.enter(others_name, PASSWORD)
        assert (await again.request("GET", "/users/me"))["username"] == others_name
        assert again.session is not None
        assert again.session.positions == {}


async def test_a_text_that_is_too_long_is_refused_and_ends_nothing(two: tuple[Client, Client]) -> None:
    alice, _ = two
    guild = (await alice.create_guild("tea")).guild_id
    channel = (await alice.create_channel(guild, "general")).channel_id
    async with alice.gateway() as events:
        await heard(events, LogFollowed, log=f"channel:{channel}")
        with pytest.raises(ApiError) as refused:
            await alice.post(channel, "x" * 70_000)
        assert (refused.value.status, refused.value.code) == (413, "payload_too_large")
        await alice.post(channel, "short")
        assert (await heard(events, MessagePosted)).text == "short"
