"""Refreshing: answered again within the grace, limited per account and address, and reuse told to the operator (PROTOCOL 4.6)."""

from __future__ import annotations

import pytest

from openguild_proto.canonical.keys import KeyRing
from openguild_proto.canonical.signing import SigningKey
from openguild_proto.http.message import Response
from openguild_proto.policy.ratelimit import SlidingWindow
from tests.support.world import PASSWORD, World, decoded


@pytest.fixture
def world() -> World:
    return World()


def login(world: World, name: str = "alice") -> str:
    """A refresh token."""
    world.ask("POST", "/users/register", {"username": name, "password": PASSWORD})
    body = {"identifier": name, "secret": PASSWORD, "device": {"device_id": "d"}}
    return str(decoded(world.ask("POST", "/sessions/login", body))["refresh_token"])


def refresh(world: World, token: str) -> Response:
    return world.ask("POST", "/sessions/refresh", {"refresh_token": token})


def test_every_answer_within_the_grace_holds_a_working_pair(world: World) -> None:
    token = login(world)
    answers = [refresh(world, token) for _ in range(8)]
    assert [answer.status for answer in answers] == [200] * 8
    pairs = [decoded(answer) for answer in answers]
    assert len({pair["access_token"] for pair in pairs}) == 8
    assert all(world.ask("GET", "/users/me", token=pair["access_token"]).status == 200 for pair in pairs)
    world.wall_ms += 86_400_000 // 4
    assert refresh(world, pairs[3]["refresh_token"]).status == 200
    assert world.warned == []


def test_replicas_that_sign_with_different_keys_answer_with_one_successor(world: World) -> None:
    """A rolling rotation of keys: a token asked again at another replica must not end an innocent family."""
    old, new = SigningKey(bytes(32)), SigningKey(bytes([1]) * 32)
    rings = [KeyRing(old, (new.public,)), KeyRing(new, (old.public,))]
    token = login(world)
    pairs = []
    for ring in rings:
        world.service.tokens.replace_keys(ring)
        pairs.append(decoded(refresh(world, token)))
    assert pairs[0]["refresh_token"] == pairs[1]["refresh_token"]
    world.wall_ms += 60_000
    for ring, pair in zip(rings, pairs, strict=True):
        world.service.tokens.replace_keys(ring)
        assert refresh(world, pair["refresh_token"]).status == 200
    assert world.warned == []


def test_reuse_after_the_grace_ends_the_family_and_is_told_without_the_token(world: World) -> None:
    token = login(world)
    following = decoded(refresh(world, token))
    world.wall_ms += world.service.settings.refresh_grace_secs * 1_000 + 1
    again = refresh(world, token)
    assert (again.status, again.rejection) == (401, "refresh_token_reused")
    assert refresh(world, following["refresh_token"]).status == 401
    (warning,) = world.warned
    assert warning.message == "refresh token reused: its family is revoked"
    fields = dict(warning.fields)
    assert set(fields) == {"user_id", "family_id"}
    assert token not in str(warning)


def test_refreshes_of_one_account_are_limited(world: World) -> None:
    world.service.account_refreshes = SlidingWindow(3, 60)
    token, other = login(world), login(world, "bob")
    for _ in range(3):
        token = decoded(refresh(world, token))["refresh_token"]
    refused = refresh(world, token)
    assert (refused.status, refused.rejection) == (429, "refresh_rate_limit")
    assert 0 < int(dict(refused.headers)["retry-after"]) <= 61
    assert refresh(world, other).status == 200
    world.wall_ms += 61_000
    assert refresh(world, token).status == 200, "the token was not spent"


def test_refreshes_from_one_address_are_limited_before_any_query(world: World) -> None:
    world.service.address_refreshes = SlidingWindow(2, 60)
    unknown = "A" * 22
    assert [refresh(world, unknown).status for _ in range(3)] == [401, 401, 429]
    asked: list[object] = []
    world.ask(
        "POST", "/sessions/refresh", {"refresh_token": unknown}, before=lambda place, effect: asked.append(effect)
    )
    assert asked == []


def test_revocations_from_one_address_are_limited_before_any_query(world: World) -> None:
    token = login(world)
    world.service.address_refreshes = SlidingWindow(2, 60)
    asked: list[object] = []

    def revoke(token: str) -> Response:
        body = {"refresh_token": token}
        return world.ask("POST", "/sessions/revoke", body, before=lambda place, effect: asked.append(effect))

    assert [revoke(text).status for text in ("A", "A" * 21 + "B", "é" * 22, "A" * 30_000)] == [204] * 4
    assert asked == [], "what cannot be a token is none that the store knows, and counts for nothing"
    assert [revoke("A" * 22).status for _ in range(2)] == [204, 204]
    asked.clear()
    refused = revoke(token)
    assert (refused.status, refused.rejection) == (429, "refresh_rate_limit")
    assert 0 < int(dict(refused.headers)["retry-after"]) <= 61
    assert asked == []
    assert refresh(world, token).status == 429, "one window for both"
    world.wall_ms += 61_000
    assert revoke(token).status == 204
    assert refresh(world, token).status == 401


def test_another_replica_counts_the_same_refreshes(world: World) -> None:
    world.service.account_refreshes = SlidingWindow(2, 60)
    token = login(world)
    for _ in range(2):
        token = decoded(refresh(world, token))["refresh_token"]
        world.service.account_refreshes = SlidingWindow(2, 60)  # as another replica's, which has heard of none
    assert refresh(world, token).status == 429
