"""Paths and the routes that answer them (PROTOCOL 3.1)."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from openguild_proto.operations import members, reads
from openguild_proto.operations.openapi import build_openapi, documented_path
from openguild_proto.operations.router import (
    MAX_REMEMBERED,
    MAX_REMEMBERED_CHARS,
    BadParameter,
    Matched,
    Router,
    WrongMethod,
)
from openguild_proto.operations.routes import ROUTES, match

UUID = "ec7c5138-ee1a-4112-95ef-e53514b670c2"


def test_client_routes_stand_twice_and_operational_ones_once() -> None:
    for path, template in (("/users/me", "/users/me"), ("/client/v1/users/me", "/client/v1/users/me")):
        found = match("GET", path)
        assert isinstance(found, Matched)
        assert found.template == template
    assert match("GET", "/client/v1/health") is None
    assert match("GET", "/client/v1/client/v1") is None
    assert match("GET", "/client/v1/") is None


def test_parameters_are_decoded_and_canonical() -> None:
    found = match("GET", f"/guilds/%7B{UUID.upper()}%7D/channels")
    assert isinstance(found, Matched)
    assert found.params == {"guild_id": UUID}
    assert found.template == "/guilds/{guild_id}/channels"
    assert isinstance(match("GET", "/guilds/x/channels"), BadParameter)
    assert isinstance(match("GET", "/invites/%ff"), BadParameter)
    assert isinstance(match("GET", "/invites/%00"), BadParameter)


def test_literal_segments_come_before_parameters() -> None:
    unread = match("GET", "/channels/unread")
    assert isinstance(unread, Matched)
    assert unread.route.operation is reads.list_unread
    leave = match("DELETE", f"/guilds/{UUID}/members/@me")
    assert isinstance(leave, Matched)
    assert leave.route.operation is members.leave


@pytest.mark.parametrize("me", ["@me", "%40me"])
def test_the_caller_may_be_quoted_like_a_parameter(me: str) -> None:
    left = match("DELETE", f"/guilds/{UUID}/members/{me}")
    assert isinstance(left, Matched)
    assert left.template == "/guilds/{guild_id}/members/@me"


@pytest.mark.parametrize(
    "path", ["", "/", "//", "/health/", "/Health", "/%68ealth", "/%6Detrics", "/guilds//channels", "/users/me/x", "*"]
)
def test_unknown_paths(path: str) -> None:
    assert match("GET", path) is None


def test_wrong_methods_name_the_right_ones() -> None:
    found = match("PATCH", "/guilds")
    assert isinstance(found, WrongMethod)
    assert found.allow == "GET, HEAD, OPTIONS, POST"
    assert isinstance(match("HEAD", "/guilds"), Matched)
    assert isinstance(match("HEAD", "/sessions/login"), WrongMethod)


def test_every_route_finds_itself() -> None:
    for route in ROUTES:
        path = route.template.replace("{guild_id}", UUID).replace("{channel_id}", UUID).replace("{user_id}", UUID)
        path = (
            path.replace("{code}", "abc")
            .replace("{device_id}", "phone")
            .replace("{identity}", "me")
            .replace("{log_id}", UUID)
        )
        found = match(route.method, path)
        assert isinstance(found, Matched)
        assert found.route is route


def test_every_route_is_described() -> None:
    document = build_openapi(ROUTES, "1.2.3")
    for route in ROUTES:
        described = document["paths"][documented_path(route)][route.method.lower()]
        assert described["summary"] == route.summary
        assert str(route.status) in described["responses"]
    references = {node["$ref"] for node in walk(document) if isinstance(node, dict) and "$ref" in node}
    for reference in references:
        _, components, kind, name = reference.split("/")
        assert name in document[components][kind]
    json.dumps(document)


def walk(node: object) -> Iterator[object]:
    yield node
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    for child in children:
        yield from walk(child)


def test_a_path_is_matched_again_as_before_and_few_are_remembered() -> None:
    router = Router(ROUTES)
    paths = [f"/channels/{number:08x}-ee1a-4112-95ef-e53514b670c2/messages" for number in range(MAX_REMEMBERED + 10)]
    first = [router.match("POST", path) for path in paths]
    assert len(router._remembered) <= MAX_REMEMBERED
    assert [router.match("POST", path) for path in paths] == first
    assert all(
        isinstance(found, Matched) and found.params["channel_id"] in path
        for found, path in zip(first, paths, strict=True)
    )
    for path in ("/channels/no-uuid/messages", f"/users/{UUID}/" + "x" * MAX_REMEMBERED_CHARS, "/nothing"):
        before = len(router._remembered)
        assert router.match("POST", path) == router.match("POST", path)
        assert len(router._remembered) == before
    found = router.match("POST", paths[0])
    assert isinstance(found, Matched)
    with pytest.raises(TypeError):
        found.params["channel_id"] = UUID  # type: ignore[index]  # which is what is tried
