"""Bans through the client's typed calls and as events, against a real server."""

from __future__ import annotations

import pytest

from openguild_runtime.client import (
    Ban,
    Client,
    Forbidden,
    LogFollowed,
    MemberBanned,
    MemberRemoved,
    MemberUnbanned,
    NotFound,
)
from tests.integration.test_client_api import clients

__all__ = ["clients"]

pytestmark = pytest.mark.anyio


async def test_a_banned_user_is_out_until_the_ban_ends(clients: tuple[Client, Client]) -> None:
    alice, bob = clients
    guild = (await alice.create_guild("tea")).guild_id
    await alice.create_channel(guild, "general")
    code = (await alice.create_invite(guild)).code
    bob_id = (await bob.accept_invite(code)).user_id
    ban = await alice.ban_member(guild, bob_id, "spam & more")
    assert isinstance(ban, Ban)
    assert (ban.user_id, ban.reason, ban.username is not None) == (bob_id, "spam & more", True)
    with pytest.raises(Forbidden) as refused:
        await bob.accept_invite(code)
    assert refused.value.code == "banned"
    with pytest.raises(NotFound):
        await bob.ban_member(guild, bob_id)
    assert await alice.ban_member(guild, bob_id, "else") == ban
    assert [line async for line in alice.bans(guild)] == [ban]
    await alice.unban_member(guild, bob_id, "enough")
    with pytest.raises(NotFound):
        await alice.unban_member(guild, bob_id)
    assert (await bob.accept_invite(code)).role == "member"


async def test_a_member_who_is_timed_out_only_reads_until_it_ends(clients: tuple[Client, Client]) -> None:
    alice, bob = clients
    guild = (await alice.create_guild("tea")).guild_id
    channel = (await alice.create_channel(guild, "general")).channel_id
    bob_id = (await bob.accept_invite((await alice.create_invite(guild)).code)).user_id
    member = await alice.time_out(guild, bob_id, 600, "spam & more")
    assert member.timed_out_until is not None
    with pytest.raises(Forbidden) as refused:
        await bob.post(channel, "x")
    assert refused.value.code == "timed_out"
    assert refused.value.retry_after_secs == pytest.approx(600, abs=60)
    assert [event async for event in bob.history(channel)] == []
    with pytest.raises(Forbidden):
        await bob.end_timeout(guild, bob_id)
    await alice.end_timeout(guild, bob_id, "enough")
    with pytest.raises(NotFound):
        await alice.end_timeout(guild, bob_id)
    await bob.post(channel, "at once")


async def test_a_ban_is_told_in_the_log_of_the_guild(clients: tuple[Client, Client]) -> None:
    alice, bob = clients
    guild = (await alice.create_guild("tea")).guild_id
    bob_id = (await bob.accept_invite((await alice.create_invite(guild)).code)).user_id
    heard: list[tuple[type, str, str | None]] = []
    async with alice.gateway() as events:
        async for event in events:
            if isinstance(event, LogFollowed) and event.log == f"guild:{guild}":
                await alice.ban_member(guild, bob_id, "spam")
                await alice.unban_member(guild, bob_id)
            if isinstance(event, MemberRemoved | MemberBanned | MemberUnbanned):
                heard.append((type(event), event.content.user_id, event.content.reason))
            if isinstance(event, MemberUnbanned):
                break
    assert heard == [(MemberRemoved, bob_id, "spam"), (MemberBanned, bob_id, "spam"), (MemberUnbanned, bob_id, None)]
