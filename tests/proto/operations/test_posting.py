"""Who may post a plain message is decided where it is stored: in one trip, with the answers and limits of a check before."""

from __future__ import annotations

import pytest

from openguild_proto.effects import Effect
from openguild_proto.effects.channels import AppendEvent, FindChannelAccess, FindPosted
from openguild_proto.federation.mirrored import MAX_KNOWN, MirroredChannels
from openguild_proto.http.message import Response
from openguild_proto.policy.ratelimit import SlidingWindow
from tests.support.homeservers import Federation, Homeserver
from tests.support.world import World, decoded

LIMIT = 3
ASKED = (AppendEvent, FindChannelAccess, FindPosted)


class House(World):
    """Alice's channel, bob who is a member, a stranger; `asked`: what the last request asked of the store."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.alice, self.bob, self.stranger = (self.user(name) for name in ("alice", "bob", "stranger"))
        self.guild = decoded(self.ask("POST", "/guilds", {"name": "g"}, self.alice))["guild_id"]
        made = self.ask("POST", f"/guilds/{self.guild}/channels", {"name": "c"}, self.alice)
        self.path = f"/channels/{decoded(made)['channel_id']}/messages"
        self.code = decoded(self.ask("POST", f"/guilds/{self.guild}/invites", {}, self.alice))["code"]
        self.bob_id = decoded(self.ask("GET", "/users/me", None, self.bob))["user_id"]
        self.join()
        self.service.user_messages = SlidingWindow(LIMIT, 60)

    def join(self) -> None:
        assert self.ask("POST", f"/invites/{self.code}/accept", None, self.bob).status == 200

    def post(self, token: str, path: str = "", **body: object) -> Response:
        def before(place: int, effect: Effect[object]) -> None:
            if isinstance(effect, ASKED):
                self.asked.append(type(effect).__name__)

        self.asked.clear()
        return self.ask("POST", path or self.path, {"content": "x"} | body, token, before=before)


@pytest.fixture
def house() -> House:
    return House()


def refusal(answer: Response) -> tuple[int, str]:
    return answer.status, decoded(answer)["error"]


def test_a_plain_message_is_one_trip_and_others_are_two(house: House) -> None:
    assert house.post(house.bob).status == 200
    assert house.asked == ["AppendEvent"]
    assert house.post(house.bob, content="@everyone").status == 200
    assert house.asked == ["FindChannelAccess", "AppendEvent"]


@pytest.mark.parametrize("content", ["x", "@everyone x"])
def test_what_is_refused_for_a_right_counts_as_a_message(house: House, content: str) -> None:
    answers = [refusal(house.post(house.stranger, content=content)) for _ in range(LIMIT + 1)]
    assert answers == [(404, "not_found")] * LIMIT + [(429, "message_rate_limit")]
    assert house.asked == [], "beyond the limit the store is asked nothing"
    path = f"/guilds/{house.guild}/members/{house.bob_id}"
    assert house.ask("PUT", path, {"role": "guest"}, house.alice).status < 300
    answers = [refusal(house.post(house.bob, content=content)) for _ in range(LIMIT + 1)]
    assert answers == [(403, "forbidden")] * LIMIT + [(429, "message_rate_limit")]
    assert [house.post(house.alice).status for _ in range(LIMIT + 1)] == [200] * LIMIT + [429]


def test_a_former_member_learns_nothing_by_a_repeat(house: House) -> None:
    """Beyond the limit a nonce is looked up: only for those who may post."""
    assert [house.post(house.bob, nonce=f"n{place}").status for place in range(LIMIT)] == [200] * LIMIT
    assert house.post(house.bob, nonce="n0").status == 200
    assert house.asked == ["FindChannelAccess", "FindPosted"]
    assert house.ask("DELETE", f"/guilds/{house.guild}/members/{house.bob_id}", None, house.alice).status < 300
    assert refusal(house.post(house.bob, nonce="n0")) == (404, "not_found")
    assert refusal(house.post(house.bob)) == (429, "message_rate_limit")


def test_posts_of_a_mirrored_channel_go_to_the_owner_without_a_trip_to_the_store() -> None:
    federation = Federation("north.test", "south.test")
    north, south = federation["north.test"], federation["south.test"]
    alice, bob = north.user("alice"), south.user("bob")
    guild = north.ask_for(alice, "POST", "/guilds", {"name": "far away"})["guild_id"]
    channel = north.ask_for(alice, "POST", f"/guilds/{guild}/channels", {"name": "general"})["channel_id"]
    code = north.ask_for(alice, "POST", f"/guilds/{guild}/invites")["code"]
    south.ask_for(bob, "POST", f"/invites/{code}@north.test/accept")
    path = f"/channels/{channel}/messages"

    def asked(server: Homeserver, token: str) -> list[str]:
        found: list[str] = []
        answer = server.ask(
            "POST", path, {"content": "x"}, token,
            before=lambda place, effect: found.append(type(effect).__name__),
        )  # fmt: skip
        assert answer.status == 200
        return [name for name in found if name in ("AppendEvent", "FindChannelAccess")]

    assert asked(south, bob) == ["AppendEvent", "FindChannelAccess"], "the first one learns whose it is"
    assert asked(south, bob) == ["FindChannelAccess"]
    assert channel in south.service.mirrored
    assert len(north.ask_for(alice, "GET", path)) == 2


def test_the_channels_known_as_mirrored_are_bounded() -> None:
    known = MirroredChannels()
    for number in range(MAX_KNOWN + 1):
        known.note(str(number), mirrored=True)
    assert "0" not in known
    assert "1" in known
    known.note("1", mirrored=False)
    assert "1" not in known
