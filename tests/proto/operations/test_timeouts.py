"""Members who are timed out (PROTOCOL 5.9)."""

from __future__ import annotations

from typing import Any

import pytest

from openguild_proto.http.message import Response
from openguild_proto.timestamps import to_millis
from tests.proto.operations.test_account_deletion import Club
from tests.proto.operations.test_federated_guilds import Shared, error, shared, user_id
from tests.support.world import decoded

__all__ = ["shared"]


@pytest.fixture
def club() -> Club:
    """A guild of Alice, in which Bob is a member."""
    return Club()


def path(club: Club, user: str | None = None) -> str:
    return f"/guilds/{club.guild}/members/{user or club.bob_id}/timeout"


def time_out(club: Club, secs: Any = 60, who: str | None = None) -> Response:
    return club.world.ask("PUT", path(club), {"secs": secs}, who or club.alice)


def told(answer: Response) -> tuple[int, str]:
    return answer.status, decoded(answer)["error"] if answer.body else ""


def post(club: Club, who: str) -> tuple[int, str]:
    answer = club.world.ask("POST", f"/channels/{club.channel}/messages", {"content": "x"}, who)
    return answer.status, decoded(answer).get("error", "")


def news(club: Club) -> list[dict[str, Any]]:
    return [line["event"] for line in club.make("GET", f"/guilds/{club.guild}/log")]


def test_a_member_only_reads_until_it_is_over(club: Club) -> None:
    shown = decoded(time_out(club, 60))
    assert to_millis(shown["timed_out_until"]) == club.world.wall_ms + 60_000
    assert post(club, club.bob) == (403, "timed_out")
    assert told(club.world.ask("POST", f"/channels/{club.channel}/typing", token=club.bob)) == (403, "timed_out")
    assert club.world.ask("GET", f"/channels/{club.channel}/messages", token=club.bob).status == 200
    assert post(club, club.alice)[0] == 200
    club.world.wall_ms += 60_001
    assert post(club, club.bob)[0] == 200
    (line,) = [line for line in club.make("GET", f"/guilds/{club.guild}/members") if line["user_id"] == club.bob_id]
    assert "timed_out_until" not in line


def test_the_refusal_says_until_when(club: Club) -> None:
    until = decoded(time_out(club, 60))["timed_out_until"]
    club.world.wall_ms += 12_500
    told_message = club.world.ask("POST", f"/channels/{club.channel}/messages", {"content": "x"}, club.bob)
    assert decoded(told_message)["message"] == f"you are timed out until {until}"
    assert decoded(told_message)["retry_after_ms"] == 47_500
    assert dict(told_message.headers)["retry-after"] == "48"


@pytest.mark.parametrize("secs", [60, None])
def test_a_change_of_a_message_is_refused_alike(club: Club, secs: int | None) -> None:
    """Its rights are decided where it is stored. None: not timed out, but a viewer."""
    sent = club.make("POST", f"/channels/{club.channel}/messages", {"content": "x"}, who=club.bob)
    target = f"/channels/{club.channel}/events/{sent['event_id']}"
    if secs is None:
        club.make("PUT", f"/guilds/{club.guild}/members/{club.bob_id}", {"role": "viewer"})
    else:
        time_out(club, secs)
    refused = told(club.world.ask("PATCH", target, {"content": "y"}, club.bob))
    assert refused == (403, "forbidden" if secs is None else "timed_out")


def test_an_owner_whose_timeout_does_not_count_is_refused_for_the_other_reason(club: Club) -> None:
    time_out(club, 60)
    club.make("PUT", f"/guilds/{club.guild}/members/{club.bob_id}", {"role": "owner"})
    assert told(club.world.ask("PUT", f"/guilds/{club.guild}/bans/{club.bob_id}", {}, club.bob)) == (403, "forbidden")


def test_the_guilds_log_tells_of_it_and_of_its_end(club: Club) -> None:
    until = decoded(club.world.ask("PUT", f"{path(club)}?reason=spam", {"secs": 9}, club.alice))["timed_out_until"]
    assert club.world.ask("DELETE", path(club), token=club.alice).status == 204
    begun, ended = news(club)[-2:]
    assert begun["event_type"] == ended["event_type"] == "member.timed_out"
    assert {**begun["content"], "place": None} == {
        "user_id": club.bob_id,
        "until": until,
        "reason": "spam",
        "place": None,
    }
    assert {**ended["content"], "place": None} == {"user_id": club.bob_id, "place": None}
    assert post(club, club.bob)[0] == 200


def test_roles_of_channels_count_less_too_and_all_come_back(club: Club) -> None:
    club.make("PUT", f"/guilds/{club.guild}/members/{club.bob_id}", {"role": "maintainer"})
    own = club.make("POST", f"/guilds/{club.guild}/channels", {"name": "own"}, who=club.bob)["channel_id"]
    code = club.make("POST", f"/guilds/{club.guild}/invites", {}, who=club.bob)["code"]
    assert time_out(club).status == 200
    for method, target, body in (
        ("POST", f"/channels/{own}/messages", {"content": "x"}),
        ("PATCH", f"/channels/{own}", {"name": "mine"}),
        ("POST", f"/guilds/{club.guild}/channels", {"name": "more"}),
        ("POST", f"/guilds/{club.guild}/invites", {}),
    ):
        assert told(club.world.ask(method, target, body, club.bob)) == (403, "timed_out"), target
    assert club.world.ask("GET", f"/invites/{code}", token=club.alice).status == 200, "it still leads here"
    club.world.ask("DELETE", path(club), token=club.alice)
    assert club.world.ask("PATCH", f"/channels/{own}", {"name": "mine"}, club.bob).status == 200


def test_who_leaves_and_joins_again_is_still_timed_out(club: Club) -> None:
    code = club.make("POST", f"/guilds/{club.guild}/invites", {})["code"]
    time_out(club)
    club.make("DELETE", f"/guilds/{club.guild}/members/@me", who=club.bob)
    club.make("POST", f"/invites/{code}/accept", who=club.bob)
    assert post(club, club.bob) == (403, "timed_out")


def test_a_second_one_takes_the_place_of_the_first(club: Club) -> None:
    time_out(club, 600)
    time_out(club, 5)
    club.world.wall_ms += 5_001
    assert post(club, club.bob)[0] == 200


def test_who_may_time_out_whom(club: Club) -> None:
    alice = decoded(club.world.ask("GET", "/users/me", token=club.alice))["user_id"]
    assert told(time_out(club, who=club.bob)) == (403, "forbidden")
    club.make("PUT", f"/guilds/{club.guild}/members/{club.bob_id}", {"role": "moderator"})
    assert told(club.world.ask("PUT", path(club, alice), {"secs": 9}, club.bob)) == (403, "forbidden")
    assert told(club.world.ask("PUT", path(club), {"secs": 9}, club.bob)) == (403, "forbidden"), "oneself"
    assert time_out(club).status == 200
    assert told(club.world.ask("DELETE", path(club), token=club.bob)) == (403, "timed_out")
    carol = club.world.user("carol")
    assert told(time_out(club, who=carol)) == (404, "not_found")
    assert told(club.world.ask("PUT", path(club, "f" * 8 + club.bob_id[8:]), {"secs": 9}, club.alice)) == (
        404,
        "not_found",
    )


@pytest.mark.parametrize("secs", [0, -1, 28 * 86_400 + 1, "60", None, 1.5])
def test_the_time_is_bounded(club: Club, secs: Any) -> None:
    answer = time_out(club, secs)
    assert told(answer) == (400, "validation_error")
    assert [problem["field"] for problem in decoded(answer)["details"]] == ["secs"]


def test_ending_none_is_not_found(club: Club) -> None:
    assert told(club.world.ask("DELETE", path(club), token=club.alice)) == (404, "not_found")
    time_out(club, 1)
    club.world.wall_ms += 1_001
    assert post(club, club.bob)[0] == 200
    assert told(club.world.ask("DELETE", path(club), token=club.alice)) == (404, "not_found")


def test_members_of_another_server_are_timed_out_there_too(shared: Shared) -> None:
    bob = user_id(shared.south, shared.bob)
    shared.north.ask_for(shared.alice, "PUT", f"/guilds/{shared.guild}/members/{bob}/timeout", {"secs": 600})

    def post_there() -> Response:
        return shared.south.ask("POST", f"/channels/{shared.channel}/messages", {"content": "x"}, shared.bob)

    assert error(post_there()) == (403, "forbidden"), "the owner decides"
    shared.level()
    (line,) = [
        line
        for line in shared.south.ask_for(shared.bob, "GET", f"/guilds/{shared.guild}/members")
        if line["user_id"] == bob
    ]
    assert line["timed_out_until"]
    assert error(post_there()) == (403, "timed_out"), "the mirror has heard of it"
    shared.north.ask_for(shared.alice, "DELETE", f"/guilds/{shared.guild}/members/{bob}/timeout")
    shared.level()
    assert post_there().status == 200


def test_a_mirror_that_begins_anew_knows_who_is_timed_out(shared: Shared) -> None:
    carol = shared.north.user("carol")
    shared.north.ask_for(carol, "POST", f"/invites/{shared.code}/accept")
    carol_id = user_id(shared.north, carol)
    shared.north.ask_for(shared.alice, "PUT", f"/guilds/{shared.guild}/members/{carol_id}/timeout", {"secs": 600})
    shared.south.ask_for(shared.bob, "DELETE", f"/guilds/{shared.guild}/members/@me")
    shared.level()
    shared.south.ask_for(shared.bob, "POST", f"/invites/{shared.code}@north.test/accept")
    lines = shared.south.ask_for(shared.bob, "GET", f"/guilds/{shared.guild}/members")
    assert [line["user_id"] for line in lines if "timed_out_until" in line] == [carol_id]


def test_who_becomes_the_only_owner_may_act_at_once(club: Club) -> None:
    alice = decoded(club.world.ask("GET", "/users/me", token=club.alice))["user_id"]
    time_out(club)
    shown = club.make("PUT", f"/guilds/{club.guild}/members/{club.bob_id}", {"role": "owner"})
    assert "timed_out_until" not in shown
    club.make("DELETE", f"/guilds/{club.guild}/members/@me")
    assert post(club, club.bob)[0] == 200
    code = club.make("POST", f"/guilds/{club.guild}/invites", {}, who=club.bob)["code"]
    club.make("POST", f"/invites/{code}/accept")
    assert club.world.ask("PUT", path(club, alice), {"secs": 9}, club.bob).status == 200


def test_a_mirror_that_begins_with_a_join_knows_that_they_are_timed_out(shared: Shared) -> None:
    bob = user_id(shared.south, shared.bob)
    shared.north.ask_for(shared.alice, "PUT", f"/guilds/{shared.guild}/members/{bob}/timeout", {"secs": 600})
    shared.south.ask_for(shared.bob, "DELETE", f"/guilds/{shared.guild}/members/@me")
    shared.level()
    joined = shared.south.ask_for(shared.bob, "POST", f"/invites/{shared.code}@north.test/accept")
    (line,) = [
        line
        for line in shared.south.ask_for(shared.bob, "GET", f"/guilds/{shared.guild}/members")
        if line["user_id"] == bob
    ]
    assert joined["timed_out_until"] == line["timed_out_until"]
    assert error(shared.south.ask("POST", f"/channels/{shared.channel}/typing", token=shared.bob)) == (403, "timed_out")


def test_a_mirror_hears_that_who_joins_again_is_timed_out(shared: Shared) -> None:
    carol = shared.north.user("carol")
    shared.north.ask_for(carol, "POST", f"/invites/{shared.code}/accept")
    carol_id = user_id(shared.north, carol)
    shared.north.ask_for(shared.alice, "PUT", f"/guilds/{shared.guild}/members/{carol_id}/timeout", {"secs": 600})
    shared.north.ask_for(carol, "DELETE", f"/guilds/{shared.guild}/members/@me")
    shared.south.ask_for(shared.bob, "DELETE", f"/guilds/{shared.guild}/members/@me")
    shared.level()
    shared.south.ask_for(shared.bob, "POST", f"/invites/{shared.code}@north.test/accept")
    shared.north.ask_for(carol, "POST", f"/invites/{shared.code}/accept")
    shared.level()
    lines = shared.south.ask_for(shared.bob, "GET", f"/guilds/{shared.guild}/members")
    assert [line["user_id"] for line in lines if "timed_out_until" in line] == [carol_id]
