"""Bans on a real server: a banned user's streams end, and an operator's command cannot make them a member."""

from __future__ import annotations

from tests.support.chat import Chat, closed_with, receive
from tests.support.server import ServerProcess


def test_the_streams_of_a_banned_user_end(chat: Chat) -> None:
    owner, bob = chat.user(), chat.user()
    guild = owner.guild()
    channel = owner.channel(guild)
    code = owner.invite(guild)
    bob.join(code)
    with bob.stream(channel) as stream:
        owner.say(channel, "hello")
        receive(stream, 1)
        made = owner.ok(owner.request("PUT", f"/guilds/{guild}/bans/{bob.user_id}", params={"reason": "too loud"}))
        assert (made["username"], made["reason"]) == (bob.name, "too loud")
        assert closed_with(stream) == 4403
    refused = bob.post(f"/invites/{code}/accept")
    assert (refused.status_code, refused.json()["error"]) == (403, "banned")
    assert owner.ok(owner.get(f"/guilds/{guild}/bans")) == [made]
    owner.ok(owner.request("DELETE", f"/guilds/{guild}/bans/{bob.user_id}"))
    assert bob.post(f"/invites/{code}/accept").status_code == 200


def test_a_banned_user_gets_no_role_in_the_guild(server: ServerProcess, chat: Chat) -> None:
    owner, bob = chat.user(), chat.user()
    guild = owner.guild()
    assert owner.request("PUT", f"/guilds/{guild}/bans/{bob.user_id}").status_code == 200
    assign = ("assign-guild-role", "--username", bob.name, "--guild-id", guild, "--role", "member")
    done = server.run_command(*assign)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert (
        f"'{bob.name}' is banned from guild '{guild}': a moderator of the guild must end the ban first" in done.stderr
    )
    owner.ok(owner.request("DELETE", f"/guilds/{guild}/bans/{bob.user_id}"))
    assert server.run_command(*assign).returncode == 0
