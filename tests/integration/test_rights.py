"""The permissions of a member after their role in the guild has changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.chat import Chat, User
from tests.support.server import ServerProcess


@pytest.fixture
def bob(chat: Chat, alice: User) -> tuple[User, str, str]:
    """Return a maintainer who has created a channel, in which they are `moderator`."""
    bob, guild = chat.user(), alice.guild()
    bob.join(alice.invite(guild))
    set_role(alice, guild, bob, "maintainer")
    return bob, guild, bob.channel(guild, "bob's")


def set_role(by: User, guild: str, user: User, role: str) -> None:
    by.ok(by.request("PUT", f"/guilds/{guild}/members/{user.user_id}", json={"role": role}))


def test_a_channels_creator_who_is_demoted_has_no_more_rights_in_it(alice: User, bob: tuple[User, str, str]) -> None:
    bob_, guild, channel = bob
    bob_.say(channel, "mine")
    bob_.ok(bob_.request("PATCH", f"/channels/{channel}", json={"name": "renamed"}))
    set_role(alice, guild, bob_, "guest")
    assert bob_.post(f"/channels/{channel}/messages", {"content": "x"}).status_code == 403
    assert bob_.request("PATCH", f"/channels/{channel}", json={"name": "again"}).status_code == 403
    assert [event["event"]["content"]["content"] for event in bob_.history(channel)] == ["mine"], "guests read"
    (line,) = bob_.ok(bob_.get("/users/me"))["channels"]
    assert (line["role"], line["effective_role"]) == ("guest", "guest")
    set_role(alice, guild, bob_, "member")
    bob_.say(channel, "again")
    assert bob_.request("PATCH", f"/channels/{channel}", json={"name": "again"}).status_code == 403


def test_a_creator_keeps_their_channel_with_a_role_that_is_no_lower(alice: User, bob: tuple[User, str, str]) -> None:
    bob_, guild, channel = bob
    for role in ("moderator", "admin", "moderator"):
        set_role(alice, guild, bob_, role)
        bob_.ok(bob_.request("PATCH", f"/channels/{channel}", json={"name": role}))


def test_a_role_in_a_channel_that_the_operator_gives_afterwards_counts(
    alice: User, bob: tuple[User, str, str], server: ServerProcess
) -> None:
    bob_, guild, channel = bob
    set_role(alice, guild, bob_, "guest")
    granted = server.run_command(
        "assign-channel-role", "--username", bob_.name, "--channel-id", channel, "--role", "moderator"
    )
    assert granted.returncode == 0, granted.stderr
    bob_.say(channel, "by the role in this channel")
    bob_.ok(bob_.request("PATCH", f"/channels/{channel}", json={"name": "x"}))


def test_repeats_are_bounded_on_a_server(new_database: Callable[[], str], tmp_path: Path) -> None:
    limits = {"MESSAGING__MAX_MESSAGES_PER_USER_PER_WINDOW": 2}
    with ServerProcess(tmp_path, DATABASE_URL=new_database(), **limits).start() as server:
        alice = server.chat().user()
        path = f"/channels/{alice.channel(alice.guild())}/messages"
        answers = [alice.post(path, {"content": "x", "nonce": "n"}) for _ in range(30)]
        assert [answer.status_code for answer in answers] == [200] * 22 + [429] * 8
        assert answers[-1].json()["error"] == "message_rate_limit"
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 61
        assert len(alice.history(path.split("/")[2])) == 1
