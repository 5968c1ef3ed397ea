"""A guild with members on two servers, through the cores of both: joining, writing, reading, leaving."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
import pytest

from openguild_proto.effects.federation import AskPeer
from openguild_proto.federation.policy import Mode
from openguild_proto.hints import PresenceStatus
from openguild_proto.http.message import Response
from openguild_proto.limits import REMOTE_JOIN_WRITES, REMOTE_PREVIEW_WRITES
from openguild_proto.mirror_records import RemoteUser
from openguild_proto.operations import peer_guilds
from openguild_proto.policy.ratelimit import SlidingWindow
from openguild_proto.schemas.between_servers import UserAnswer, UserRequest
from tests.support.homeservers import Federation, Homeserver
from tests.support.world import decoded

NORTH, SOUTH = "north.test", "south.test"


class Shared(NamedTuple):
    """A guild of the north, with alice as its owner, and bob of the south as a member."""

    federation: Federation
    north: Homeserver
    south: Homeserver
    alice: str
    bob: str
    guild: str
    channel: str
    code: str

    def level(self) -> None:
        self.north.deliver(SOUTH)

    def messages(self, server: Homeserver, token: str) -> list[Any]:
        return list(server.ask_for(token, "GET", f"/channels/{self.channel}/messages"))


def user_id(server: Homeserver, token: str) -> str:
    return str(server.ask_for(token, "GET", "/users/me")["user_id"])


def error(answer: Response) -> tuple[int, str]:
    return answer.status, decoded(answer)["error"]


@pytest.fixture
def shared() -> Shared:
    federation = Federation(NORTH, SOUTH, "east.test")
    north, south = federation[NORTH], federation[SOUTH]
    alice, bob = north.user("alice"), south.user("bob")
    guild = north.ask_for(alice, "POST", "/guilds", {"name": "far away"})["guild_id"]
    channel = north.ask_for(alice, "POST", f"/guilds/{guild}/channels", {"name": "general"})["channel_id"]
    north.ask_for(alice, "POST", f"/channels/{channel}/messages", {"content": "before"})
    code = north.ask_for(alice, "POST", f"/guilds/{guild}/invites")["code"]
    south.ask_for(bob, "POST", f"/invites/{code}@{NORTH}/accept")
    return Shared(federation, north, south, alice, bob, guild, channel, code)


def test_an_invite_of_another_server_is_previewed(shared: Shared) -> None:
    shown = shared.south.ask_for(shared.bob, "GET", f"/invites/{shared.code}@{NORTH}")
    assert (shown["guild_id"], shown["origin"], shown["member_count"]) == (shared.guild, NORTH, 2)
    assert error(shared.south.ask("GET", f"/invites/none@{NORTH}", token=shared.bob)) == (404, "not_found")
    assert error(shared.south.ask("GET", "/invites/x@-no-", token=shared.bob)) == (400, "validation_error")
    assert error(shared.south.ask("GET", "/invites/x@nowhere.test", token=shared.bob)) == (503, "guild_offline")


def turn_off(server: Homeserver) -> None:
    settings = server.service.settings
    off = msgspec.structs.replace(settings.federation, mode=Mode.OFF)
    server.service.apply(msgspec.structs.replace(settings, federation=off))


def test_where_federation_is_off_no_owner_is_asked(shared: Shared) -> None:
    south, carol = shared.south, shared.south.user("carol")
    turn_off(south)
    asked = [
        south.ask("GET", f"/invites/{shared.code}@{NORTH}", token=carol),
        south.ask("POST", f"/invites/{shared.code}@{NORTH}/accept", token=carol),
        south.ask("POST", f"/channels/{shared.channel}/messages", {"content": "x"}, shared.bob),
    ]
    assert [error(answer) for answer in asked] == [(501, "not_implemented")] * len(asked)
    assert not any(name == "retry-after" for answer in asked for name, _ in answer.headers)
    assert south.ask("DELETE", f"/guilds/{shared.guild}/members/@me", token=shared.bob).status == 204


def test_members_are_counted_as_far_as_a_join_needs(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_guilds, "MAX_COUNTED_MEMBERS", 1)
    shown = shared.south.ask_for(shared.bob, "GET", f"/invites/{shared.code}@{NORTH}")
    assert shown["member_count"] == 1, "of two"
    carol = shared.south.user("carol")
    monkeypatch.setattr(peer_guilds, "MAX_MIRRORED_MEMBERS", 2)
    refused = shared.south.ask("POST", f"/invites/{shared.code}@{NORTH}/accept", token=carol)
    assert error(refused) == (409, "limit_reached")


@pytest.mark.parametrize("limit", [3 * REMOTE_JOIN_WRITES, 5], ids=["three joins", "less than a join"])
def test_joins_at_other_servers_count_as_twelve_changes_each(shared: Shared, limit: int) -> None:
    shared.south.service.user_writes = SlidingWindow(limit, 60)
    eve, joins = shared.south.user("eve"), max(1, limit // REMOTE_JOIN_WRITES)
    answers = [shared.south.ask("POST", f"/invites/{shared.code}@{NORTH}/accept", token=eve) for _ in range(joins + 1)]
    assert [answer.status for answer in answers] == [200] * joins + [429]
    assert error(answers[-1]) == (429, "write_rate_limit")


def test_previews_of_other_servers_count_as_six_changes_each(shared: Shared) -> None:
    """All users of south share what north answers it in a minute: none of them may use it up."""
    shared.south.service.user_writes = SlidingWindow(2 * REMOTE_PREVIEW_WRITES, 60)
    eve, path = shared.south.user("eve"), f"/invites/{shared.code}@{NORTH}"
    answers = [shared.south.ask("GET", path, token=eve) for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert error(answers[-1]) == (429, "write_rate_limit")
    assert shared.south.ask("GET", path, token=shared.bob).status == 200


def test_a_guild_of_another_server_is_one_of_the_users(shared: Shared) -> None:
    south, bob = shared.south, shared.bob
    (guild,) = south.ask_for(bob, "GET", "/guilds")
    assert (guild["name"], guild["origin"]) == ("far away", NORTH)
    (channel,) = south.ask_for(bob, "GET", f"/guilds/{shared.guild}/channels")
    assert (channel["name"], channel["origin"]) == ("general", NORTH)
    members = {
        line["username"]: line.get("origin") for line in south.ask_for(bob, "GET", f"/guilds/{shared.guild}/members")
    }
    assert members == {"alice": NORTH, "bob": None}
    there = {
        line["username"]: line.get("origin")
        for line in shared.north.ask_for(shared.alice, "GET", f"/guilds/{shared.guild}/members")
    }
    assert there == {"alice": None, "bob": SOUTH}


def test_what_was_written_before_is_read_at_the_owner(shared: Shared) -> None:
    before = [(message["content"], message["origin"]) for message in shared.messages(shared.south, shared.bob)]
    assert before == [("before", NORTH)]
    events = shared.south.ask_for(shared.bob, "GET", f"/channels/{shared.channel}/events?since=0")
    assert [line["event"]["content"]["content"] for line in events] == ["before"]
    shared.federation.cut.add(frozenset({NORTH, SOUTH}))
    away = shared.south.ask("GET", f"/channels/{shared.channel}/messages", token=shared.bob)
    assert error(away) == (503, "guild_offline"), "an empty page would be the end"


def test_a_post_is_on_both_servers(shared: Shared) -> None:
    posted = shared.south.ask_for(
        shared.bob, "POST", f"/channels/{shared.channel}/messages", {"content": "hello", "nonce": "n"}
    )
    assert posted["sequence"] == 2
    for server, token in ((shared.north, shared.alice), (shared.south, shared.bob)):
        last = shared.messages(server, token)[-1]
        assert (last["content"], last["event_id"]) == ("hello", posted["event_id"])
        assert last.get("origin") == (SOUTH if server is shared.north else None)
    assert [event.event_id for event in shared.south.told] == [posted["event_id"]]
    event = shared.north.ask_for(shared.alice, "GET", f"/channels/{shared.channel}/events")[-1]["event"]
    assert event["origin_server"] == SOUTH
    assert set(event["signatures"]) == {NORTH, SOUTH}
    again = shared.south.ask_for(
        shared.bob, "POST", f"/channels/{shared.channel}/messages", {"content": "hello", "nonce": "n"}
    )
    assert again == posted
    other = shared.south.ask(
        "POST", f"/channels/{shared.channel}/messages", {"content": "other", "nonce": "n"}, shared.bob
    )
    assert error(other) == (409, "nonce_reused")


def test_a_post_in_another_epoch_is_not_stored_in_the_former_one(shared: Shared) -> None:
    channel = shared.north.tables._state.channels[shared.channel]
    channel.record = msgspec.structs.replace(channel.record, epoch=7)
    path = f"/channels/{shared.channel}/messages"
    assert shared.south.ask_for(shared.bob, "POST", path, {"content": "after a restore"})["sequence"] == 2
    assert shared.south.told == []


def test_messages_of_the_owner_are_delivered(shared: Shared) -> None:
    for text in ("one", "two"):
        shared.north.ask_for(shared.alice, "POST", f"/channels/{shared.channel}/messages", {"content": text})
    shared.level()
    assert [message["content"] for message in shared.messages(shared.south, shared.bob)] == ["before", "one", "two"]
    shared.level()
    assert [event.sequence for event in shared.south.told] == [2, 3]


def test_edits_reactions_pins_and_redactions_cross(shared: Shared) -> None:
    north, south, path = shared.north, shared.south, f"/channels/{shared.channel}"
    mine = south.ask_for(shared.bob, "POST", f"{path}/messages", {"content": "mine"})["event_id"]
    hers = north.ask_for(shared.alice, "POST", f"{path}/messages", {"content": "hers"})["event_id"]
    shared.level()
    south.ask_for(shared.bob, "PATCH", f"{path}/events/{mine}", {"content": "mine, edited"})
    south.ask_for(
        shared.bob, "POST", f"{path}/events/{hers}/reactions", {"emoji": "\N{WAVING HAND SIGN}", "action": "add"}
    )
    south.ask_for(shared.bob, "POST", f"{path}/messages", {"content": "answer", "reply_to": hers})
    north.ask_for(shared.alice, "PUT", f"{path}/pins/{mine}")
    shared.level()
    here, there = shared.messages(south, shared.bob), shared.messages(north, shared.alice)
    assert [(m["content"], m.get("edited_at") is None) for m in here] == [
        (m["content"], m.get("edited_at") is None) for m in there
    ]
    assert [m.get("pinned_at") is None for m in here] == [m.get("pinned_at") is None for m in there]
    assert here[2]["reactions"] == [
        {"emoji": "\N{WAVING HAND SIGN}", "count": 1, "me": True, "reactors": [user_id(south, shared.bob)]}
    ]
    assert error(south.ask("PUT", f"{path}/pins/{hers}", token=shared.bob)) == (403, "forbidden")
    assert error(south.ask("PATCH", f"{path}/events/{hers}", {"content": "x"}, shared.bob)) == (403, "forbidden")
    south.ask_for(shared.bob, "DELETE", f"{path}/events/{mine}")
    shared.level()
    for server, token in ((south, shared.bob), (north, shared.alice)):
        assert [m.get("content") for m in shared.messages(server, token)] == ["before", None, "hers", "answer"]
        events = server.ask_for(token, "GET", f"{path}/events?since=1")
        assert "mine" not in str([line["event"]["content"].get("content") for line in events])


def test_moderators_of_both_servers_clear_reactions(shared: Shared) -> None:
    north, south, path = shared.north, shared.south, f"/channels/{shared.channel}"
    hers = north.ask_for(shared.alice, "POST", f"{path}/messages", {"content": "hers"})["event_id"]
    reactions = f"{path}/events/{hers}/reactions"

    def shown() -> list[list[str]]:
        shared.level()
        both = (south, shared.bob), (north, shared.alice)
        (here, there) = [server.ask_for(token, "GET", f"{path}/messages/{hers}") for server, token in both]
        assert [line["count"] for line in here.get("reactions", [])] == [
            line["count"] for line in there.get("reactions", [])
        ]
        return [[line["emoji"] for line in message.get("reactions", [])] for message in (here, there)]

    for emoji in ("rude", "kind", "mild"):
        south.ask_for(shared.bob, "POST", reactions, {"emoji": emoji})
    shared.level()
    assert error(south.ask("DELETE", reactions, token=shared.bob)) == (403, "forbidden")
    north.ask_for(shared.alice, "DELETE", f"{reactions}?emoji=rude&reason=rude")
    assert shown() == [["kind", "mild"]] * 2
    bob = user_id(south, shared.bob)
    north.ask_for(shared.alice, "PUT", f"/guilds/{shared.guild}/members/{bob}", {"role": "moderator"})
    shared.level()
    first = south.ask_for(shared.bob, "DELETE", f"{reactions}?emoji=kind")
    assert first["message_id"] == hers
    assert shown() == [["mild"]] * 2
    assert south.ask_for(shared.bob, "DELETE", f"{reactions}?emoji=kind") == {"message_id": hers}
    south.ask_for(shared.bob, "DELETE", f"{reactions}?reason=no+more")
    assert shown() == [[], []]
    for server, token in ((south, shared.bob), (north, shared.alice)):
        cleared = [line["event"] for line in server.ask_for(token, "GET", f"{path}/events?since=5")]
        assert [event["event_type"] for event in cleared] == ["reactions.cleared"] * 3
        said = [(event["content"].get("emoji"), event["content"].get("reason")) for event in cleared]
        assert said == [("rude", "rude"), ("kind", None), (None, "no more")]


def test_changes_of_the_guild_are_made_by_its_owner(shared: Shared) -> None:
    south, north, bob = shared.south, shared.north, shared.bob
    assert error(south.ask("PATCH", f"/guilds/{shared.guild}", {"name": "mine"}, bob)) == (403, "forbidden")
    north.ask_for(shared.alice, "PUT", f"/guilds/{shared.guild}/members/{user_id(south, bob)}", {"role": "admin"})
    shared.level()
    renamed = south.ask_for(bob, "PATCH", f"/guilds/{shared.guild}", {"name": "ours"})
    assert (renamed["name"], renamed["origin"]) == ("ours", NORTH)
    made = south.ask_for(bob, "POST", f"/guilds/{shared.guild}/channels", {"name": "made"})["channel_id"]
    invite = south.ask_for(bob, "POST", f"/guilds/{shared.guild}/invites")
    assert [line["code"] for line in south.ask_for(bob, "GET", f"/guilds/{shared.guild}/invites")][-1] == invite["code"]
    shared.level()
    assert south.ask_for(bob, "GET", f"/guilds/{shared.guild}")["name"] == "ours"
    posted = south.ask_for(bob, "POST", f"/channels/{made}/messages", {"content": "first"})
    assert posted["sequence"] == 1
    assert south.ask_for(bob, "GET", f"/channels/{made}/messages")[0]["content"] == "first"
    log = south.ask_for(bob, "GET", f"/guilds/{shared.guild}/log")
    assert [line["event"]["event_type"] for line in log[-3:]] == ["guild.updated", "channel.created", "invite.created"]
    assert {line["event"]["sender"] for line in log[-3:]} == {user_id(south, bob)}


def test_what_is_here_is_not_read_at_the_owner(shared: Shared) -> None:
    made = shared.north.ask_for(shared.alice, "POST", f"/guilds/{shared.guild}/channels", {"name": "made"})[
        "channel_id"
    ]
    shared.north.ask_for(shared.alice, "POST", f"/channels/{made}/messages", {"content": "first"})
    shared.level()
    before = len(shared.federation.carried)
    for path in (f"/channels/{made}/events", f"/channels/{made}/messages", f"/channels/{made}/pins"):
        shared.south.ask_for(shared.bob, "GET", path)
    assert len(shared.federation.carried) == before


def test_an_owner_that_is_away_is_told_to_the_user(shared: Shared) -> None:
    shared.federation.cut.add(frozenset({NORTH, SOUTH}))
    path = f"/channels/{shared.channel}/messages"
    answer = shared.south.ask("POST", path, {"content": "hello", "nonce": "n"}, shared.bob)
    assert error(answer) == (503, "guild_offline")
    assert dict(answer.headers)["retry-after"]
    shared.federation.cut.clear()
    assert shared.south.ask("POST", path, {"content": "hello", "nonce": "n"}, shared.bob).status == 200
    assert [m["content"] for m in shared.messages(shared.north, shared.alice)] == ["before", "hello"]


def test_a_refusal_of_the_owner_names_the_fields(shared: Shared) -> None:
    path = f"/guilds/{shared.guild}/members/{user_id(shared.south, shared.bob)}"
    there = shared.north.ask("PUT", path, {"role": "emperor"}, shared.alice)
    bob = user_id(shared.south, shared.bob)
    shared.north.ask_for(shared.alice, "PUT", f"/guilds/{shared.guild}/members/{bob}", {"role": "admin"})
    shared.level()
    answer = shared.south.ask("PUT", path, {"role": "emperor"}, shared.bob)
    assert error(answer) == error(there) == (400, "validation_error")
    assert decoded(answer)["details"] == decoded(there)["details"] != []


def test_whoever_leaves_takes_the_mirror_along(shared: Shared) -> None:
    shared.south.ask_for(shared.bob, "DELETE", f"/guilds/{shared.guild}/members/@me")
    told = shared.north.deliver(SOUTH)
    assert told.purged == [shared.guild]
    assert shared.south.ask_for(shared.bob, "GET", "/guilds") == []
    assert error(shared.south.ask("GET", f"/channels/{shared.channel}/messages", token=shared.bob))[0] == 404
    shared.south.ask_for(shared.bob, "POST", f"/invites/{shared.code}@{NORTH}/accept")
    shared.south.ask_for(shared.bob, "POST", f"/channels/{shared.channel}/messages", {"content": "back"})
    assert [m["content"] for m in shared.messages(shared.south, shared.bob)] == ["before", "back"]


def test_whoever_joins_again_before_the_mirror_knows_that_they_left_is_a_member(shared: Shared) -> None:
    shared.south.ask_for(shared.bob, "DELETE", f"/guilds/{shared.guild}/members/@me")
    shared.south.ask_for(shared.bob, "POST", f"/invites/{shared.code}@{NORTH}/accept")
    shared.level()
    assert len(shared.south.ask_for(shared.bob, "GET", "/guilds")) == 1
    shared.north.ask_for(shared.alice, "POST", f"/channels/{shared.channel}/messages", {"content": "welcome back"})
    shared.level()
    assert [m["content"] for m in shared.messages(shared.south, shared.bob)] == ["before", "welcome back"]


def test_a_second_member_of_a_server_joins_the_mirror(shared: Shared) -> None:
    carol = shared.south.user("carol")
    shared.south.ask_for(carol, "POST", f"/invites/{shared.code}@{NORTH}/accept")
    shared.level()
    names = {line["username"] for line in shared.south.ask_for(carol, "GET", f"/guilds/{shared.guild}/members")}
    assert names == {"alice", "bob", "carol"}
    shared.south.ask_for(carol, "DELETE", f"/guilds/{shared.guild}/members/@me")
    shared.level()
    assert shared.south.ask_for(carol, "GET", "/guilds") == []
    assert len(shared.south.ask_for(shared.bob, "GET", "/guilds")) == 1


def test_a_mirroring_server_reads_pages_of_the_log(shared: Shared) -> None:
    for text in ("one", "two", "three"):
        shared.north.ask_for(shared.alice, "POST", f"/channels/{shared.channel}/messages", {"content": text})

    def page(server: Homeserver, query: str, log_id: str = shared.channel) -> tuple[int, Any]:
        answer = server.perform(AskPeer(NORTH, "GET", f"/federation/v1/logs/{log_id}/events{query}"))
        return answer.status, msgspec.json.decode(answer.body)

    status, whole = page(shared.south, "?since=0")
    assert (status, whole["head"], whole["first"], len(whole["events"])) == (200, 4, 1, 4)
    assert '"content":"one"' in whole["events"][1]["event"]
    assert page(shared.south, "?before=4&limit=2")[1]["first"] == 2
    assert page(shared.south, "?since=4")[1]["events"] == []
    assert len(page(shared.south, "", shared.guild)[1]["events"]) == 5
    assert page(shared.south, "?since=1&before=3")[0] == 400
    assert page(shared.federation["east.test"], "?since=0")[0] == 404
    assert page(shared.south, "?since=0", user_id(shared.north, shared.alice))[0] == 404


def test_another_server_reads_and_writes_nothing(shared: Shared) -> None:
    east = shared.federation["east.test"]
    mallory = user_id(east, east.user("mallory"))

    bob = user_id(shared.south, shared.bob)
    reading = f"/channels/{shared.channel}/messages"
    assert east.perform(AskPeer(NORTH, "GET", f"/federation/v1/guilds/{shared.guild}/snapshot")).status == 404
    for reader in (mallory, bob):
        asked = UserRequest(RemoteUser(reader, "m"), "GET", reading)
        answer = east.perform(AskPeer(NORTH, "POST", "/federation/v1/requests", msgspec.json.encode(asked)))
        assert answer.status in {404, 409}, answer.body


def test_pins_of_users_of_this_server_are_signed_here(shared: Shared) -> None:
    bob, south, path = user_id(shared.south, shared.bob), shared.south, f"/channels/{shared.channel}"
    shared.north.ask_for(shared.alice, "PUT", f"/guilds/{shared.guild}/members/{bob}", {"role": "admin"})
    shared.level()
    mine = south.ask_for(shared.bob, "POST", f"{path}/messages", {"content": "mine"})["event_id"]
    south.ask_for(shared.bob, "PUT", f"{path}/pins/{mine}")
    shared.level()
    assert [line["event_id"] for line in south.ask_for(shared.bob, "GET", f"{path}/pins")] == [mine]


def test_who_is_online_is_not_for_other_servers(shared: Shared) -> None:
    """PROTOCOL 16.7.2."""
    shared.north.present = {user_id(shared.north, shared.alice): PresenceStatus.ONLINE}
    assert shared.north.ask_for(shared.alice, "GET", f"/guilds/{shared.guild}/presence")["members"] != []
    bob = RemoteUser(user_id(shared.south, shared.bob), "bob")
    for target, status in ((f"/guilds/{shared.guild}/presence", 404), (f"/guilds/{shared.guild}/members", 200)):
        body = msgspec.json.encode(UserRequest(bob, "GET", target))
        answer = shared.south.perform(AskPeer(NORTH, "POST", "/federation/v1/requests", body))
        assert msgspec.json.decode(answer.body, type=UserAnswer).status == status, target
