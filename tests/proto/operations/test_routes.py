"""Paths and the routes that answer them (2, D-49)."""

from __future__ import annotations

import pytest

from openguild_proto.operations.routes import ROUTES, BadParameter, Matched, WrongMethod, match

UUID = "ec7c5138-ee1a-4112-95ef-e53514b670c2"


def test_client_routes_stand_twice_and_operational_ones_once() -> None:
    for path, template in (("/users/me", "/users/me"), ("/client/v1/users/me", "/client/v1/users/me")):
        found = match("GET", path)
        assert isinstance(found, Matched)
        assert found.template == template
    assert match("GET", "/client/v1/health") is None
    assert match("GET", "/client/v1") is None
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
    assert unread.route.operation == "reads.list_unread"
    leave = match("DELETE", f"/guilds/{UUID}/members/@me")
    assert isinstance(leave, Matched)
    assert leave.route.operation == "members.leave"


@pytest.mark.parametrize("path", ["", "/", "//", "/health/", "/Health", "/guilds//channels", "/users/me/x", "*"])
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
        path = path.replace("{code}", "abc").replace("{device_id}", "phone").replace("{identity}", "me")
        found = match(route.method, path)
        assert isinstance(found, Matched)
        assert found.route is route
