"""A creation with an idempotency key is done once, whatever the client does not hear (PROTOCOL 3.8)."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from openguild_proto.effects.base import StorageEffect, StorageUnavailable
from openguild_proto.effects.guilds import AcceptInvite, RemoveMember
from openguild_proto.http.message import Response
from openguild_proto.limits import KEPT_ANSWER_SECS
from openguild_proto.operations import changes, messages
from openguild_proto.operations.idempotency import CREATION_KEY, IDEMPOTENCY_KEY
from openguild_proto.operations.route import Route, collect_routes
from openguild_proto.operations.routes import ROUTES
from openguild_proto.records import Author
from tests.support.world import World, decoded, request

DONE_AGAIN_WITHOUT_HARM = {  # repeating them changes nothing, or replaces what the first one made
    "POST /users/register", "POST /sessions/login", "POST /sessions/refresh", "POST /sessions/revoke", "POST /sync",
    "POST /users/@me/password", "POST /channels/{channel_id}/typing", "POST /channels/{channel_id}/typing-preview",
    "POST /channels/{channel_id}/read", "POST /users/@me/delete",
}  # fmt: skip


class Scene:
    """alice with a guild and an invite to it; bob, who is no member."""

    def __init__(self) -> None:
        self.world = World()
        self.alice, self.bob = self.world.user("alice"), self.world.user("bob")
        self.guild = decoded(self.ask("/guilds", {"name": "g"}))["guild_id"]
        self.code = decoded(self.ask(f"/guilds/{self.guild}/invites", {}))["code"]

    def ask(
        self, path: str, body: Any = None, key: str | None = None, token: str | None = None, **hooks: Any
    ) -> Response:
        asked = request("POST", path, body, token or self.alice)
        if key is not None:
            asked = msgspec.structs.replace(asked, headers=(*asked.headers, ("idempotency-key", key)))
        answer = self.world.run(asked, **hooks)
        assert isinstance(answer, Response)
        return answer

    def count(self) -> tuple[int, ...]:
        state = self.world.tables._state
        members = sum(len(members) for members in state.members.values())
        return len(state.guilds), len(state.channels), len(state.invites), members


@pytest.fixture
def scene() -> Scene:
    return Scene()


def creations(scene: Scene) -> list[tuple[str, Any, Any, str]]:
    """Path, body, another body, and whose token."""
    return [
        ("/guilds", {"name": "new"}, {"name": "other"}, scene.alice),
        (f"/guilds/{scene.guild}/channels", {"name": "new"}, {"name": "new", "position": 2}, scene.alice),
        (f"/guilds/{scene.guild}/invites", {"max_uses": 2}, {"max_uses": 3}, scene.alice),
        (f"/invites/{scene.code}/accept", None, None, scene.bob),
    ]


each = pytest.mark.parametrize("at", range(4), ids=["guild", "channel", "invite", "member"])


@each
def test_a_repeat_gets_the_same_answer_and_makes_nothing(scene: Scene, at: int) -> None:
    path, body, _, token = creations(scene)[at]
    before = scene.count()
    first = scene.ask(path, body, "k", token)
    made = scene.count()
    assert made != before
    again = scene.ask("/client/v1" + path, body, "k", token)
    assert (again.status, again.body) == (first.status, first.body)
    assert scene.count() == made


@each
def test_the_answer_was_lost_and_the_repeat_gets_it(scene: Scene, at: int) -> None:
    path, body, _, token = creations(scene)[at]
    before = scene.count()

    def lose(place: int, effect: Any) -> None:
        if isinstance(effect, StorageEffect) and hasattr(effect, "once"):
            raise StorageUnavailable

    assert scene.ask(path, body, "k", token, after=lose).status == 503
    made = scene.count()
    assert made != before
    assert scene.ask(path, body, "k", token).status in {200, 201}
    assert scene.count() == made


@each
def test_another_request_with_the_key_is_refused(scene: Scene, at: int) -> None:
    path, body, other, token = creations(scene)[at]
    scene.ask(path, body, "k", token)
    made = scene.count()
    if other is not None:
        refused = scene.ask(path, other, "k", token)
        assert (refused.status, decoded(refused)["error"]) == (409, "nonce_reused")
    refused = scene.ask("/guilds", {"name": "yet another"}, "k", token)
    assert (refused.status, decoded(refused)["error"]) == (409, "nonce_reused")
    assert scene.count() == made


@each
def test_a_key_is_its_user_s_own_and_lasts_a_day(scene: Scene, at: int) -> None:
    path, body, _, token = creations(scene)[at]
    first = scene.ask(path, body, "k", token)
    carol = scene.world.user("carol")
    assert scene.ask("/guilds", {"name": "carol's"}, "k", carol).status == 200
    scene.world.wall_ms += KEPT_ANSWER_SECS * 1_000 - 1
    token = decoded(
        scene.ask(
            "/sessions/login",
            {
                "identifier": "bob" if token == scene.bob else "alice",
                "secret": "correct horse",
                "device": {"device_id": "d"},
            },
        )
    )["access_token"]
    assert scene.ask(path, body, "k", token).body == first.body
    scene.world.wall_ms += 1
    assert scene.ask("/guilds", {"name": "late"}, "k", token).status == 200


def test_without_a_key_each_request_makes_one(scene: Scene) -> None:
    first, second = scene.ask("/guilds", {"name": "g"}), scene.ask("/guilds", {"name": "g"})
    assert decoded(first)["guild_id"] != decoded(second)["guild_id"]


def test_a_kept_answer_is_what_it_was(scene: Scene) -> None:
    first = scene.ask("/guilds", {"name": "before"}, "k")
    guild = decoded(first)["guild_id"]
    scene.world.ask("PATCH", f"/guilds/{guild}", {"name": "after"}, scene.alice)
    assert scene.ask("/guilds", {"name": "before"}, "k").body == first.body


def test_a_removed_member_does_not_join_again_by_a_repeat(scene: Scene) -> None:
    path = f"/invites/{scene.code}/accept"
    joined = scene.ask(path, None, "k", scene.bob)
    user_id = decoded(joined)["user_id"]
    scene.world.perform(
        RemoveMember(author=Author(user_id), guild_id=scene.guild, user_id=user_id, now_ms=scene.world.wall_ms)
    )
    made = scene.count()
    assert scene.ask(path, None, "k", scene.bob).body == joined.body
    assert scene.count() == made


def test_what_was_refused_may_be_asked_again_with_its_key(scene: Scene) -> None:
    path = f"/guilds/{scene.guild}/channels"
    assert scene.ask(path, {"name": "c"}, "k", scene.bob).status == 404
    scene.world.perform(
        AcceptInvite(author=Author(_user_id(scene, scene.bob)), code=scene.code, role="admin", now_ms=0)
    )
    assert scene.ask(path, {"name": "c"}, "k", scene.bob).status == 200


def _user_id(scene: Scene, token: str) -> str:
    user_id: str = decoded(scene.world.ask("GET", "/users/me", token=token))["user_id"]
    return user_id


@pytest.mark.parametrize("key", ["", "x" * 65, "a b", "\xe4", "\x7f"])
def test_a_key_is_visible_ascii(scene: Scene, key: str) -> None:
    refused = scene.ask("/guilds", {"name": "g"}, key)
    assert refused.status == 400
    assert decoded(refused)["details"][0]["field"] == "Idempotency-Key"
    assert scene.ask("/guilds", {"name": "g"}, "~" * 64).status == 200


def test_one_key_at_most(scene: Scene) -> None:
    asked = request("POST", "/guilds", {"name": "g"}, scene.alice)
    two = (*asked.headers, ("idempotency-key", "a"), ("idempotency-key", "b"))
    refused = scene.world.run(msgspec.structs.replace(asked, headers=two))
    assert isinstance(refused, Response)
    assert decoded(refused)["details"] == [{"field": "Idempotency-Key", "message": "must not be repeated"}]


def takes(route: Route) -> bool:
    return CREATION_KEY in route.request_headers or IDEMPOTENCY_KEY in route.request_headers


def test_every_route_that_makes_something_takes_a_key() -> None:
    posts = {f"{route.method} {route.template}": route for route in ROUTES if route.method == "POST" and route.client}
    assert {name for name, route in posts.items() if not takes(route)} == DONE_AGAIN_WITHOUT_HARM
    assert all(takes(route) for route in collect_routes(messages, changes))
