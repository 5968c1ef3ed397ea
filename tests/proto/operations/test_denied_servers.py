"""What users see where an operator has decided against a server: the reason (PROTOCOL 16.4.5)."""

from __future__ import annotations

import msgspec
import pytest

from openguild_proto.effects.federation import AskPeer, RuleServer, Standing
from openguild_proto.effects.handovers import BeginMove
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


class TwoGuilds:
    """Guilds of NORTH with a channel each, which a user of SOUTH has joined."""

    def __init__(self) -> None:
        federation = Federation(NORTH, SOUTH)
        self.north, self.south = federation[NORTH], federation[SOUTH]
        self.alice, self.bob = self.north.user("alice"), self.south.user("bob")
        self.guilds, self.channels, self.codes = [], [], []
        for number in range(2):
            guild = self.north.ask_for(self.alice, "POST", "/guilds", {"name": f"g{number}"})["guild_id"]
            channel = self.north.ask_for(self.alice, "POST", f"/guilds/{guild}/channels", {"name": "c"})["channel_id"]
            self.codes.append(self.north.ask_for(self.alice, "POST", f"/guilds/{guild}/invites")["code"])
            self.south.ask_for(self.bob, "POST", f"/invites/{self.codes[-1]}@{NORTH}/accept")
            self.guilds.append(guild)
            self.channels.append(channel)

    def say(self) -> None:
        for channel in self.channels:
            self.north.ask_for(self.alice, "POST", f"/channels/{channel}/messages", {"content": "news"})

    def seen(self) -> list[int]:
        return [len(self.south.ask_for(self.bob, "GET", f"/channels/{each}/events")) for each in self.channels]

    def posted(self) -> list[int]:
        asked = [f"/channels/{each}/messages" for each in self.channels]
        return [self.south.ask("POST", path, {"content": "x"}, self.bob).status for path in asked]


def test_a_ruling_for_one_guild_leaves_the_others() -> None:
    scene = TwoGuilds()
    rule(scene.north, SOUTH, Standing.QUARANTINE, scene.guilds[0])
    assert scene.posted() == [403, 200]


@pytest.mark.parametrize("standing", [Standing.DENY, Standing.QUARANTINE])
def test_nothing_new_of_one_guild_is_taken_of_its_owner(standing: Standing) -> None:
    scene = TwoGuilds()
    rule(scene.south, NORTH, standing, scene.guilds[0])
    scene.say()
    told = {place.log_id: place for place in scene.north.deliver(SOUTH).logs}
    assert [told[channel].status for channel in scene.channels] == ["refused", "ok"]
    assert (told[scene.channels[0]].reason or "").endswith(": spam")
    assert scene.seen() == [0, 1]
    body = {"logs": [], "ended": [{"guild_id": guild, "epoch": 0, "sequence": 0} for guild in scene.guilds]}
    asked = AskPeer(SOUTH, "POST", "/federation/v1/deliveries", msgspec.json.encode(body))
    assert msgspec.json.decode(scene.north.perform(asked).body)["purged"] == [scene.guilds[1]]

    rule(scene.south, NORTH, None, scene.guilds[0])
    scene.north.deliver(SOUTH)
    assert len(scene.south.ask_for(scene.bob, "GET", f"/channels/{scene.channels[0]}/events")) == 1


def test_a_server_that_is_denied_in_one_guild_reads_nothing_of_it() -> None:
    scene = TwoGuilds()
    scene.say()
    rule(scene.north, SOUTH, Standing.DENY, scene.guilds[0])
    for number, expected in enumerate((403, 200)):
        guild, channel = scene.guilds[number], scene.channels[number]
        for target in (
            f"/federation/v1/guilds/{guild}/snapshot",
            f"/federation/v1/logs/{guild}/events",
            f"/federation/v1/logs/{channel}/events",
            f"/federation/v1/logs/{channel}/proof",
        ):
            assert scene.south.perform(AskPeer(NORTH, "GET", target)).status == expected, target


@pytest.mark.parametrize(("standing", "status"), [(Standing.DENY, 403), (Standing.QUARANTINE, 200)])
def test_the_history_of_a_guild_on_its_way_is_not_for_a_server_that_is_denied_in_it(
    standing: Standing, status: int
) -> None:
    scene = TwoGuilds()
    scene.say()
    for guild in scene.guilds:
        assert scene.north.perform(BeginMove(guild_id=guild, to=SOUTH, now_ms=scene.north.wall_ms)) is None
    rule(scene.north, SOUTH, standing, scene.guilds[0])
    asked = [f"/federation/v1/logs/{channel}/history?since=0" for channel in scene.channels]
    assert [scene.south.perform(AskPeer(NORTH, "GET", target)).status for target in asked] == [status, 200]


def test_no_invite_is_deleted_of_an_owner_that_is_denied_in_its_guild() -> None:
    scene = TwoGuilds()
    bob_id = scene.south.ask_for(scene.bob, "GET", "/users/me")["user_id"]
    for guild in scene.guilds:
        scene.north.ask_for(scene.alice, "PUT", f"/guilds/{guild}/members/{bob_id}", {"role": "admin"})
    rule(scene.south, NORTH, Standing.DENY, scene.guilds[0])
    asked = [scene.south.ask("DELETE", f"/invites/{code}@{NORTH}", token=scene.bob).status for code in scene.codes]
    assert asked == [403, 204]
    assert scene.north.ask("GET", f"/invites/{scene.codes[0]}", token=scene.alice).status == 200


def test_users_have_nothing_to_do_with_an_owner_in_a_guild_in_which_it_is_denied() -> None:
    scene = TwoGuilds()
    carol = scene.south.user("carol")
    rule(scene.south, NORTH, Standing.DENY, scene.guilds[0])
    scene.north.federation.carried.clear()
    for token, method, path in (
        (scene.bob, "POST", f"/channels/{scene.channels[0]}/messages"),
        (carol, "GET", f"/invites/{scene.codes[0]}@{NORTH}"),
        (carol, "POST", f"/invites/{scene.codes[0]}@{NORTH}/accept"),
    ):
        answer = scene.south.ask(method, path, {"content": "x"} if "channels" in path else None, token)
        assert (answer.status, decoded(answer)["error"]) == (403, "server_denied"), path
        assert decoded(answer)["message"].endswith(": spam")
    asked = [line for line in scene.north.federation.carried if "/invites/" not in line[2]]
    assert asked == [], "the owner hears of none of it"
    assert scene.posted() == [403, 200]
    scene.south.ask_for(carol, "POST", f"/invites/{scene.codes[1]}@{NORTH}/accept")
    assert scene.south.ask("DELETE", f"/guilds/{scene.guilds[0]}/members/@me", token=scene.bob).status == 204


@pytest.mark.parametrize("standing", [Standing.DENY, Standing.QUARANTINE])
def test_a_server_that_is_ruled_out_in_a_guild_deletes_no_invite_of_it(standing: Standing) -> None:
    """The path of an invite names no guild."""
    federation = Federation(NORTH, SOUTH)
    north, south = federation[NORTH], federation[SOUTH]
    alice, bob = north.user("alice"), south.user("bob")
    guild = north.ask_for(alice, "POST", "/guilds", {"name": "g"})["guild_id"]
    code = north.ask_for(alice, "POST", f"/guilds/{guild}/invites")["code"]
    south.ask_for(bob, "POST", f"/invites/{code}@{NORTH}/accept")
    bob_id = south.ask_for(bob, "GET", "/users/me")["user_id"]
    north.ask_for(alice, "PUT", f"/guilds/{guild}/members/{bob_id}", {"role": "admin"})
    rule(north, SOUTH, standing, guild)
    assert south.ask("DELETE", f"/invites/{code}@{NORTH}", token=bob).status == 403
    assert north.ask("GET", f"/invites/{code}", token=alice).status == 200
    rule(north, SOUTH, None, guild)
    assert south.ask("DELETE", f"/invites/{code}@{NORTH}", token=bob).status == 204
