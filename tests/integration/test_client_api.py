"""The client's typed calls against a real server."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator

import msgspec
import pytest

from openguild_proto.limits import MAX_PAGE_EVENTS
from openguild_proto.schemas.guilds import Guild, Invite
from openguild_runtime.client import (
    Client,
    Conflict,
    Forbidden,
    LogFollowed,
    NotFound,
    RateLimited,
    ReactionsCleared,
    Unauthorized,
    UserTyping,
)
from tests.support.chat import PASSWORD
from tests.support.server import ServerProcess

pytestmark = pytest.mark.anyio


@pytest.fixture
async def clients(server: ServerProcess) -> AsyncIterator[tuple[Client, Client]]:
    """Yield two clients that are logged in."""
    async with Client(server.base_url) as alice, Client(server.base_url) as bob:
        for client in (alice, bob):
            name = f"api-{uuid.uuid4().hex[:12]}"
            await client.register(name, PASSWORD)
            await client.login(name, PASSWORD)
        yield alice, bob


async def test_a_guild_is_changed_and_deleted(clients: tuple[Client, Client]) -> None:
    alice, bob = clients
    guild = (await alice.create_guild("tea")).guild_id
    channel = (await alice.create_channel(guild, "general")).channel_id
    assert (await alice.rename_guild(guild, "Tea room")).name == "Tea room"
    changed = await alice.change_channel(channel, name="cups", topic="What is in yours?", position=3)
    assert (changed.name, changed.topic, changed.position) == ("cups", "What is in yours?", 3)
    assert (await alice.change_channel(channel, topic="")).topic is None
    code = (await alice.create_invite(guild)).code
    assert [invite.code async for invite in alice.invites(guild)] == [code]
    bob_id = (await bob.accept_invite(code)).user_id
    assert (await alice.set_role(guild, bob_id, "moderator", "helpful & kind")).role == "moderator"
    assert [membership.role for membership in (await bob.me()).guilds] == ["moderator"]
    await bob.leave_guild(guild)
    await bob.accept_invite(code)
    await alice.remove_member(guild, bob_id, "spam & more")
    assert [member.role async for member in alice.members(guild)] == ["owner"]
    await alice.delete_invite(code)
    with pytest.raises(NotFound):
        await bob.accept_invite(code)
    await alice.delete_channel(channel)
    assert [one async for one in alice.channels(guild)] == []
    with pytest.raises(Conflict) as refused:
        await alice.leave_guild(guild)
    assert refused.value.code == "last_owner"
    await alice.delete_guild(guild)
    assert [one async for one in alice.guilds()] == []


async def test_a_display_name_is_set_and_removed(clients: tuple[Client, Client]) -> None:
    alice, _ = clients
    assert (await alice.set_display_name("Alice Liddell")).display_name == "Alice Liddell"
    assert (await alice.me()).display_name == "Alice Liddell"
    profile = await alice.set_display_name("")
    assert profile.display_name == profile.username


async def test_two_people_meet_and_read(clients: tuple[Client, Client]) -> None:
    alice, bob = clients
    guild = await alice.create_guild("Tea room")
    channel = await alice.create_channel(guild.guild_id, "general")
    assert (guild.name, channel.name, channel.guild_id) == ("Tea room", "general", guild.guild_id)
    invite = await alice.create_invite(guild.guild_id, max_uses=1, expires_in_secs=60)
    assert (invite.max_uses, invite.uses) == (1, 0)
    assert (await bob.accept_invite(f"http://127.0.0.1:8081/#invite={invite.code}")).role == "member"
    for number in range(1, 6):
        await alice.post(channel.channel_id, f"text {number}")
    page = await bob.events(channel.channel_id, since=1, limit=2)
    assert [(event.sequence, event.text) for event in page] == [(2, "text 2"), (3, "text 3")]
    assert [event.sequence for event in await bob.events(channel.channel_id, before=3)] == [1, 2]
    assert [event.sequence async for event in bob.history(channel.channel_id)] == [1, 2, 3, 4, 5]
    read = await bob.mark_read(channel.channel_id, 2)
    assert (read.last_read_sequence, read.unread) == (2, 3)
    assert [line async for line in bob.unread()] == [read]
    assert (await bob.mark_read(channel.channel_id)).unread == 0
    assert [line.code async for line in alice.list_items(Invite, f"/guilds/{guild.guild_id}/invites")] == [invite.code]


async def test_a_password_is_changed_and_this_session_goes_on(
    server: ServerProcess, clients: tuple[Client, Client]
) -> None:
    alice, _ = clients
    name = (await alice.request("GET", "/users/me"))["username"]
    refreshes: list[object] = []
    alice.on_session = refreshes.append
    async with Client(server.base_url) as laptop:
        await laptop.login(name, PASSWORD)
        with pytest.raises(Forbidden) as refused:
            await alice.change_password("a wrong guess", "battery staple")
        assert refused.value.code == "wrong_password"
        assert refreshes == [], "it says nothing of the token"
        await alice.change_password(PASSWORD, "battery staple")
        await alice.change_password("battery staple", "battery staple")
        with pytest.raises(Unauthorized):
            await laptop.request("GET", "/users/me")
        with pytest.raises(Unauthorized):
            await laptop.login(name, PASSWORD)
        await laptop.login(name, "battery staple")
    assert (await alice.request("GET", "/users/me"))["username"] == name


async def test_an_account_is_deleted(clients: tuple[Client, Client]) -> None:
    alice, bob = clients
    guild = await alice.create_guild("den")
    with pytest.raises(Conflict) as alone:
        await alice.delete_account(PASSWORD)
    assert (alone.value.code, [problem.field for problem in alone.value.details]) == ("last_owner", [guild.guild_id])
    with pytest.raises(Forbidden) as wrong:
        await bob.delete_account("a wrong guess")
    assert wrong.value.code == "wrong_password"
    await bob.delete_account(PASSWORD)
    with pytest.raises(Unauthorized):
        await bob.delete_account(PASSWORD)


async def test_typing_without_a_gateway(clients: tuple[Client, Client]) -> None:
    alice, bob = clients
    guild = (await alice.create_guild("tea")).guild_id
    channel = (await alice.create_channel(guild, "general")).channel_id
    await bob.accept_invite((await alice.create_invite(guild)).code)
    async with bob.gateway() as events:
        async for event in events:
            if isinstance(event, LogFollowed) and event.log == f"channel:{channel}":
                await alice.typing(channel, "hel")
            elif isinstance(event, UserTyping):
                break
        assert (event.user_id, event.preview) == (alice.user_id, "hel")
    await alice.typing(channel)
    with pytest.raises(RateLimited):  # not retried: a late typing signal would be wrong
        for _ in range(200):
            await alice.typing(channel)


async def test_a_moderator_clears_reactions_and_the_others_hear_of_it(clients: tuple[Client, Client]) -> None:
    alice, bob = clients
    guild = (await alice.create_guild("tea")).guild_id
    channel = (await alice.create_channel(guild, "general")).channel_id
    await bob.accept_invite((await alice.create_invite(guild)).code)
    message = (await bob.post(channel, "hello")).event_id
    for emoji in ("rude", "👋"):
        await bob.react(channel, message, emoji)
    shown = await bob.message_list(channel, bob.user_id or "")
    with pytest.raises(Forbidden):
        await bob.clear_reactions(channel, message)
    heard: list[ReactionsCleared] = []
    async with bob.gateway() as events:
        async for event in events:
            if isinstance(event, LogFollowed) and event.log == f"channel:{channel}":
                cleared = await alice.clear_reactions(channel, message, "rude", "a slur")
                assert (cleared.message_id, cleared.sequence) == (message, 4)
                assert (await alice.clear_reactions(channel, message, "rude")).sequence is None
                await alice.clear_reactions(channel, message)
            elif isinstance(event, ReactionsCleared):
                shown.apply(event.sequence, event.wire)
                heard.append(event)
                if len(heard) == 2:
                    break
                assert list(shown.messages[message].reactions) == ["👋"]
    assert [(event.content.emoji, event.content.reason) for event in heard] == [("rude", "a slur"), (None, None)]
    assert shown.messages[message].reactions == {}
    assert (await bob.message(channel, message)).reactions is msgspec.UNSET
    with pytest.raises(Forbidden):
        await heard[0].clear_reactions("👋")


async def test_a_list_and_a_log_are_read_over_all_their_pages(clients: tuple[Client, Client]) -> None:
    alice, _ = clients
    guilds = [(await alice.create_guild(f"g{number}")).guild_id for number in range(5)]
    assert [guild.guild_id async for guild in alice.list_items(Guild, "/guilds?limit=2")] == guilds
    channel = (await alice.create_channel(guilds[0], "long")).channel_id
    for number in range(MAX_PAGE_EVENTS + 1):
        await alice.post(channel, str(number))
    texts = [event.text async for event in alice.history(channel)]
    assert texts == [str(number) for number in range(MAX_PAGE_EVENTS + 1)]
