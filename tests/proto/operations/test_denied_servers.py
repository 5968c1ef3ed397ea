"""What users see where an operator has decided against a server: the reason (PROTOCOL 16.4.5)."""

from __future__ import annotations

import pytest

from openguild_proto.effects.federation import RuleServer, Standing
from tests.support.homeservers import Federation, Homeserver
from tests.support.world import decoded

NORTH, SOUTH = "north.test", "south.test"


def rule(server: Homeserver, other: str, standing: Standing | None, guild_id: str | None = None) -> None:
    server.perform(RuleServer(server=other, guild_id=guild_id, standing=standing, reason="spam", now_ms=server.wall_ms))
    for each in server.federation.servers.values():
        each.wall_ms += 1_001  # each replica looks again within a second


@pytest.mark.parametrize("standing", [Standing.DENY, Standing.QUARANTINE])
@pytest.mark.parametrize("decided_by", [NORTH, SOUTH])
def test_members_are_told_why_their_posts_are_refused(decided_by: str, standing: Standing) -> None:
    federation = Federation(NORTH, SOUTH)
    north, south = federation[NORTH], federation[SOUTH]
    alice, bob = north.user("alice"), south.user("bob")
    guild = north.ask_for(alice, "POST", "/guilds", {"name": "g"})["guild_id"]
    channel = north.ask_for(alice, "POST", f"/guilds/{guild}/channels", {"name": "c"})["channel_id"]
    code = north.ask_for(alice, "POST", f"/guilds/{guild}/invites")["code"]
    south.ask_for(bob, "POST", f"/invites/{code}@{NORTH}/accept")

    other = SOUTH if decided_by == NORTH else NORTH
    rule(federation[decided_by], other, standing)
    if decided_by == SOUTH and standing is Standing.QUARANTINE:
        south.ask_for(bob, "POST", f"/channels/{channel}/messages", {"content": "x"})
        return  # nothing new is taken of the north; what one's own users say there is theirs
    for method, path, body in (
        ("POST", f"/channels/{channel}/messages", {"content": "x"}),
        ("GET", f"/invites/{code}@{NORTH}", None),
    ):
        answer = south.ask(method, path, body, bob)
        expected = "server_quarantined" if standing is Standing.QUARANTINE else "server_denied"
        assert (answer.status, decoded(answer)["error"]) == (403, expected), path
        assert decoded(answer)["message"].endswith(": spam")
    rule(federation[decided_by], other, None)
    south.ask_for(bob, "POST", f"/channels/{channel}/messages", {"content": "x"})
    rule(federation[decided_by], other, standing)
    assert south.ask("DELETE", f"/guilds/{guild}/members/@me", token=bob).status == 204, "nobody is kept"


@pytest.mark.parametrize("everywhere", [True, False])
def test_in_quarantine_members_read_and_change_nothing(everywhere: bool) -> None:
    federation = Federation(NORTH, SOUTH)
    north, south = federation[NORTH], federation[SOUTH]
    alice, bob = north.user("alice"), south.user("bob")
    guild = north.ask_for(alice, "POST", "/guilds", {"name": "g"})["guild_id"]
    channel = north.ask_for(alice, "POST", f"/guilds/{guild}/channels", {"name": "c"})["channel_id"]
    north.ask_for(alice, "POST", f"/channels/{channel}/messages", {"content": "from before the mirror"})
    code = north.ask_for(alice, "POST", f"/guilds/{guild}/invites")["code"]
    south.ask_for(bob, "POST", f"/invites/{code}@{NORTH}/accept")
    bob_id = south.ask_for(bob, "GET", "/users/me")["user_id"]
    north.ask_for(alice, "PUT", f"/guilds/{guild}/members/{bob_id}", {"role": "admin"})
    north.deliver(SOUTH)

    rule(north, SOUTH, Standing.QUARANTINE, None if everywhere else guild)
    south.ask_for(bob, "PATCH", "/users/@me", {"display_name": "SPAM"})
    found = south.ask_for(bob, "GET", f"/channels/{channel}/messages")
    assert [line["content"] for line in found] == ["from before the mirror"]
    shown = {
        line["user_id"]: line.get("display_name") for line in north.ask_for(alice, "GET", f"/guilds/{guild}/members")
    }
    assert everywhere is (shown[bob_id] != "SPAM")
    for method, path, body in (
        ("PATCH", f"/guilds/{guild}", {"name": "spam"}),
        ("POST", f"/guilds/{guild}/channels", {"name": "spam"}),
        ("POST", f"/guilds/{guild}/invites", {}),
        ("DELETE", f"/channels/{channel}", None),
    ):
        answer = south.ask(method, path, body, bob)
        assert (answer.status, decoded(answer)["error"]) == (403, "server_quarantined"), path
    rule(north, SOUTH, Standing.DENY, guild)
    assert south.ask("GET", f"/channels/{channel}/messages", None, bob).status == 403


def test_a_ruling_for_one_guild_leaves_the_others() -> None:
    federation = Federation(NORTH, SOUTH)
    north, south = federation[NORTH], federation[SOUTH]
    alice, bob = north.user("alice"), south.user("bob")
    found = []
    for number in range(2):
        guild = north.ask_for(alice, "POST", "/guilds", {"name": f"g{number}"})["guild_id"]
        channel = north.ask_for(alice, "POST", f"/guilds/{guild}/channels", {"name": "c"})["channel_id"]
        code = north.ask_for(alice, "POST", f"/guilds/{guild}/invites")["code"]
        south.ask_for(bob, "POST", f"/invites/{code}@{NORTH}/accept")
        found.append((guild, channel))
    rule(north, SOUTH, Standing.QUARANTINE, found[0][0])
    statuses = [
        south.ask("POST", f"/channels/{channel}/messages", {"content": "x"}, bob).status for _, channel in found
    ]
    assert statuses == [403, 200]
