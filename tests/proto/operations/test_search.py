"""The route that searches: its parameters, pages, limit and shape (PROTOCOL 7.11)."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import pytest

from openguild_proto.effects import Effect
from openguild_proto.effects.search import SearchMessages, SearchTooWide
from openguild_proto.operations.context import Settings
from openguild_proto.settings.sections import SearchSettings
from tests.support.world import World, decoded

STEP_MS = 4 * 3_600_000


class Scene:
    """Alice's guild with two channels; Bob is a member, Eve is not."""

    def __init__(self, world: World | None = None) -> None:
        self.world = world or World()
        self.alice, self.bob, self.eve = (self.world.user(name) for name in ("alice", "bob", "eve"))
        self.ids = {
            token: decoded(self.world.ask("GET", "/users/me", token=token))["user_id"]
            for token in (self.alice, self.bob, self.eve)
        }
        self.guild = self._made("/guilds", "g")["guild_id"]
        self.channels = [self._made(f"/guilds/{self.guild}/channels", name)["channel_id"] for name in ("c", "d")]
        code = decoded(self.world.ask("POST", f"/guilds/{self.guild}/invites", {}, self.alice))["code"]
        self.world.ask("POST", f"/invites/{code}/accept", token=self.bob)

    def _made(self, path: str, name: str) -> Any:
        return decoded(self.world.ask("POST", path, {"name": name}, self.alice))

    def post(self, text: str, *, by: str | None = None, channel: int = 0, **members: str) -> Any:
        path = f"/channels/{self.channels[channel]}/messages"
        return decoded(self.world.ask("POST", path, {"content": text, **members}, by or self.alice))

    def ask(self, token: str | None = None, **query: str | int) -> Any:
        named = {name.rstrip("_"): value for name, value in query.items()}
        return self.world.ask("GET", f"/search/messages?{urlencode(named)}", token=token or self.bob)

    def found(self, token: str | None = None, **query: str | int) -> list[str]:
        return [line["snippet"] for line in decoded(self.ask(token, **query))]


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_a_line_says_who_wrote_what_where(scene: Scene) -> None:
    posted = scene.post("a cup of tea", channel=1)
    (line,) = decoded(scene.ask(q="tea"))
    assert line == {
        "id": posted["event_id"], "type": "message", "title": "alice", "subtitle": "d", "snippet": "a cup of tea",
        "channel_id": scene.channels[1], "event_id": posted["event_id"], "guild_id": scene.guild, "sequence": 1,
        "author": {"id": scene.ids[scene.alice], "username": "alice"}, "created_at": posted["created_at"],
    }  # fmt: skip


def test_only_the_newest_text_of_a_message_is_found(scene: Scene) -> None:
    posted = scene.post("a cup of tea")
    path = f"/channels/{scene.channels[0]}/events/{posted['event_id']}"
    scene.world.ask("PATCH", path, {"content": "a cup of coffee"}, scene.alice)
    assert scene.found(q="tea") == []
    (line,) = decoded(scene.ask(q="coffee"))
    assert line["edited_at"] is not None
    scene.world.ask("DELETE", path, token=scene.alice)
    assert scene.found(q="coffee") == scene.found(q="cup") == []


def test_only_readers_of_the_channel_find_it(scene: Scene) -> None:
    scene.post("tea")
    assert scene.found(scene.alice, q="tea") == scene.found(scene.bob, q="tea") == ["tea"]
    assert scene.found(scene.eve, q="tea") == []
    for place in (scene.channels[0], scene.guild):
        assert scene.found(scene.eve, q="tea", in_=place) == []
    scene.world.ask("DELETE", f"/guilds/{scene.guild}/members/@me", token=scene.bob)
    assert scene.found(scene.bob, q="tea") == []


def test_filters(scene: Scene) -> None:
    first = scene.post("tea one https://example.com")
    scene.world.wall_ms += STEP_MS
    scene.post("tea two", by=scene.bob, channel=1)
    scene.world.wall_ms += STEP_MS
    scene.post("tea three", reply_to=first["event_id"])
    channel = scene.channels[0]
    scene.world.ask("PUT", f"/channels/{channel}/pins/{first['event_id']}", token=scene.alice)
    scene.world.ask("POST", f"/channels/{channel}/events/{first['event_id']}/reactions", {"emoji": "👍"}, scene.bob)
    one, two, three = "tea one https://example.com", "tea two", "tea three"
    assert scene.found(q="tea") == [three, two, one]
    assert scene.found(from_=scene.ids[scene.bob]) == [two]
    assert scene.found(q="tea", in_=scene.channels[1]) == [two]
    assert scene.found(q="tea", in_=f"{scene.channels[0]},{scene.channels[1]}") == [three, two, one]
    assert scene.found(q="tea", in_=scene.guild.upper()) == [three, two, one]
    for has in ("link", "pin", "reaction", "Pin, link"):
        assert scene.found(has=has) == [one]
    assert scene.found(has="reply") == [three]
    assert scene.found(has="reply,link") == []
    assert scene.found(q="tea", after="2023-11-15") == [three, two]
    assert scene.found(q="tea", before="2023-11-15") == [one]
    assert scene.found(q="tea", after="2023-11-15T02:13:20Z", before="2023-11-15T06:13:20Z") == [two]
    assert scene.found(q="tea", before="2023-11-15T04:13:20+02:00") == [one]


def test_messages_that_mention_somebody(scene: Scene) -> None:
    channel = scene.channels[0]
    assert scene.found(has="mention") == []
    four = f"tea four for <@{scene.ids[scene.bob]}>"
    mention = scene.post(four)
    scene.post(f"tea five for `<@{scene.ids[scene.bob]}>`, which mentions nobody")
    assert scene.found(has="mention") == [four]
    scene.world.ask(
        "PATCH", f"/channels/{channel}/events/{mention['event_id']}", {"content": "tea for all"}, scene.alice
    )
    assert scene.found(has="mention") == ["tea for all"]
    scene.world.ask("DELETE", f"/channels/{channel}/events/{mention['event_id']}", token=scene.alice)
    assert scene.found(has="mention") == []


def test_pages(scene: Scene) -> None:
    for number in range(5):
        scene.world.wall_ms += 1
        scene.post(f"tea {number}", channel=number % 2)
    pages, cursor = [], {}
    while True:
        page = scene.ask(q="tea", limit=2, **cursor)
        pages.append([line["snippet"] for line in decoded(page)])
        following = dict(page.headers).get("x-next-cursor")
        if following is None:
            break
        cursor = {"cursor": following}
        scene.world.wall_ms += 1
        scene.post("tea of later")  # behind what was read
    assert [len(page) for page in pages] == [2, 2, 1]
    assert sorted(line for page in pages for line in page) == [f"tea {number}" for number in range(5)]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({}, "q"), ({"q": " "}, "q"), ({"q": "..."}, "q"), ({"q": "x" * 257}, "q"), ({"q": " ".join(map(str, range(33)))}, "q"),
        ({"q": "東" * 34}, "q"), ({"q": "x", "from_": "me"}, "from"), ({"q": "x", "in_": "x,"}, "in"), ({"in_": ""}, "in"),
        ({"q": "x", "before": "tomorrow"}, "before"),
        ({"q": "x", "after": "2026-02-30"}, "after"), ({"q": "x", "after": "1"}, "after"),
        ({"q": "x", "has": "x"}, "has"), ({"q": "x", "has": ""}, "has"), ({"q": "x", "limit": "x"}, "limit"),
        ({"q": "x", "cursor": f"1.00000000-0000-4000-8000-000000000000:{'9' * 19}"}, "cursor"),
        ({"q": "x", "cursor": "1.x"}, "cursor"), ({"q": "x", "cursor": "x"}, "cursor"), ({"q": "x", "sort": "new"}, "sort"),
        ({"in_": "00000000-0000-4000-8000-000000000000"}, "q"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(scene: Scene, query: dict[str, str], field: str) -> None:
    answer = scene.ask(**query)
    assert answer.status == 400
    body = decoded(answer)
    assert body["error"] == "validation_error"
    assert [problem["field"] for problem in body["details"]] == [field]


def test_many_places_are_refused(scene: Scene) -> None:
    assert scene.ask(q="x", in_=",".join([scene.guild] * 21)).status == 400


def test_searches_have_a_limit_of_their_own() -> None:
    scene = Scene()
    window = scene.world.service.user_searches
    window.change(2, 60)
    assert [scene.ask(q="x").status for _ in range(3)] == [200, 200, 429]
    refused = scene.ask(q="x")
    assert decoded(refused)["error"] == "search_rate_limit"
    assert dict(refused.headers)["retry-after"] == "60"
    assert scene.ask(scene.alice, q="x").status == 200
    scene.world.service.apply(Settings(search=SearchSettings(max_searches_per_user_per_window=3, window_secs=60)))
    assert scene.ask(q="x").status == 200


class Tired(World):
    """A store whose searches take too long."""

    def perform(self, effect: Effect[Any]) -> Any:
        return SearchTooWide() if isinstance(effect, SearchMessages) else super().perform(effect)


def test_a_search_that_takes_too_long_says_how_to_narrow_it() -> None:
    answer = Scene(Tired()).ask(q="x")
    assert answer.status == 400
    body = decoded(answer)
    assert body["error"] == "search_too_wide"
    assert "narrow" in body["message"]
