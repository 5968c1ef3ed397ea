"""Changing one's password (PROTOCOL 4.8)."""

from __future__ import annotations

import msgspec
import pytest

from openguild_proto.effects import Effect, Overloaded, StorageEffect
from openguild_proto.effects.accounts import ChangePassword, OpenSession, RevokeDevice, SetPassword
from openguild_proto.effects.attempts import BlockLogins
from openguild_proto.effects.process import HashPassword, VerifyPassword
from openguild_proto.http.message import Response
from openguild_proto.operations.attempts import block_address
from openguild_proto.policy.ratelimit import SlidingWindow
from openguild_proto.records import Author
from tests.support.world import PASSWORD, World, decoded, request

NEW = "battery staple"
PATH = "/users/@me/password"


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def alice(world: World) -> str:
    return world.user("alice")


def change(world: World, token: str, current: str = PASSWORD, new: str = NEW, **hooks: object) -> Response:
    return world.ask("POST", PATH, {"current_password": current, "new_password": new}, token, **hooks)


def told(answer: Response) -> tuple[int, str]:
    return answer.status, decoded(answer)["error"] if answer.body else ""


def log_in(world: World, secret: str, device: str = "laptop") -> Response:
    return world.ask(
        "POST", "/sessions/login", {"identifier": "alice", "secret": secret, "device": {"device_id": device}}
    )


def user_id_of(world: World, token: str) -> str:
    return str(decoded(world.ask("GET", "/users/me", token=token))["user_id"])


def test_the_new_password_logs_in_and_the_old_one_no_longer(world: World, alice: str) -> None:
    assert told(change(world, alice)) == (204, "")
    assert told(log_in(world, PASSWORD)) == (401, "invalid_credentials")
    assert log_in(world, NEW).status == 200


def test_other_devices_are_logged_out_and_the_callers_stays(world: World, alice: str) -> None:
    laptop = decoded(log_in(world, PASSWORD))
    assert change(world, alice).status == 204
    assert world.ask("GET", "/users/me", token=alice).status == 200
    refreshed = world.ask("POST", "/sessions/refresh", {"refresh_token": laptop["refresh_token"]})
    assert told(refreshed) == (401, "invalid_refresh_token")
    assert [line["device_id"] for line in decoded(world.ask("GET", "/sessions/devices", token=alice))] == ["d"]


def test_a_wrong_current_password_is_refused_with_403_and_changes_nothing(world: World, alice: str) -> None:
    """A client would answer 401 by a refresh of its token."""
    assert told(change(world, alice, current="a wrong guess")) == (403, "wrong_password")
    assert log_in(world, PASSWORD).status == 200


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, ["current_password", "new_password"]),
        ({"current_password": "  ", "new_password": "7 chars"}, ["current_password", "new_password"]),
        ({"current_password": "x" * 1_025, "new_password": "x" * 1_025}, ["current_password", "new_password"]),
        ({"current_password": PASSWORD, "new_password": "nul\x00nul\x00nul"}, ["new_password"]),
        ({"current_password": PASSWORD, "new_password": ""}, ["new_password"]),
        ({"current_password": "", "new_password": NEW}, ["current_password"]),
    ],
)
def test_all_problems_are_told_by_field_at_once(
    world: World, alice: str, body: dict[str, str], fields: list[str]
) -> None:
    seen: list[Effect[object]] = []
    answer = world.ask("POST", PATH, body, alice, before=lambda place, effect: seen.append(effect))
    assert told(answer) == (400, "validation_error")
    assert [problem["field"] for problem in decoded(answer)["details"]] == fields
    assert not any(isinstance(effect, VerifyPassword | HashPassword) for effect in seen)


def test_both_passwords_are_trimmed_as_at_a_login(world: World, alice: str) -> None:
    assert change(world, alice, current=f" {PASSWORD}\n", new=f"\t{NEW} ").status == 204
    assert log_in(world, NEW).status == 200


def test_a_password_may_stay_the_same_and_others_are_logged_out_all_the_same(world: World, alice: str) -> None:
    log_in(world, PASSWORD)
    assert change(world, alice, new=PASSWORD).status == 204
    assert log_in(world, PASSWORD, "another").status == 200
    devices = decoded(world.ask("GET", "/sessions/devices", token=alice))
    assert {line["device_id"] for line in devices} == {"d", "another"}


def test_a_client_without_an_answer_finds_out_by_the_new_password_alone(world: World, alice: str) -> None:
    """PROTOCOL 4.8.7."""
    assert told(change(world, alice, current=NEW)) == (403, "wrong_password"), "the change was not made"
    assert change(world, alice).status == 204
    assert told(change(world, alice)) == (403, "wrong_password"), "a repeat says nothing"
    assert change(world, alice, current=NEW).status == 204, "it was made"


def test_without_a_token_nothing_is_asked_of_the_store(world: World) -> None:
    seen: list[Effect[object]] = []
    answer = world.ask(
        "POST",
        PATH,
        {"current_password": PASSWORD, "new_password": NEW},
        before=lambda place, effect: seen.append(effect),
    )
    assert told(answer) == (401, "unauthorized")
    assert seen == []


def test_a_session_that_ends_meanwhile_changes_nothing(world: World, alice: str) -> None:
    author = Author(user_id_of(world, alice))

    def end(place: int, effect: Effect[object]) -> None:
        if isinstance(effect, ChangePassword):
            assert world.perform(RevokeDevice(author=author, device_id="d", now_ms=world.wall_ms))

    assert told(change(world, alice, before=end)) == (401, "unauthorized")
    assert log_in(world, PASSWORD).status == 200


def set_meanwhile(world: World, user_id: str, kind: type[Effect[object]]):
    """The operator sets another password before an effect of this kind is performed."""

    def hook(place: int, effect: Effect[object]) -> None:
        if isinstance(effect, kind):
            world.perform(SetPassword(user_id=user_id, password_hash=f"hashed {NEW}", now_ms=world.wall_ms))

    return hook


def test_a_login_verified_before_a_change_gets_401(world: World, alice: str) -> None:
    """PROTOCOL 4.8.5."""
    user_id = user_id_of(world, alice)
    login = {"identifier": "alice", "secret": PASSWORD, "device": {"device_id": "thief"}}
    answer = world.ask("POST", "/sessions/login", login, before=set_meanwhile(world, user_id, OpenSession))
    assert told(answer) == (401, "invalid_credentials")
    assert (answer.log_cause, answer.user_id) == ("wrong_password", user_id)
    assert log_in(world, NEW).status == 200


def test_of_two_changes_at_once_the_second_one_names_no_current_password(world: World, alice: str) -> None:
    other: list[tuple[int, str]] = []

    def between(place: int, effect: Effect[object]) -> None:
        if isinstance(effect, ChangePassword) and not other:
            other.append((0, ""))
            other[0] = told(change(world, alice, new="the first one"))

    assert told(change(world, alice, before=between)) == (403, "wrong_password")
    assert other == [(204, "")]
    assert log_in(world, "the first one").status == 200


# --- limits ------------------------------------------------------------------------------------------


def test_guesses_of_a_stolen_token_share_the_limits_of_logins(world: World, alice: str) -> None:
    """Two per account and address."""
    world.wall_ms += 120_000
    world.service.account_logins = SlidingWindow(2, 60)
    seen: list[Effect[object]] = []
    assert told(change(world, alice, "a guess")) == (403, "wrong_password")
    assert log_in(world, "another guess").status == 401
    refused = change(world, alice, before=lambda place, effect: seen.append(effect))
    assert told(refused) == (429, "login_rate_limit")
    assert "retry-after" in dict(refused.headers)
    assert not any(isinstance(effect, VerifyPassword) for effect in seen)
    assert log_in(world, PASSWORD).status == 429
    world.wall_ms += 120_000
    assert change(world, alice).status == 204


def test_guesses_are_counted_in_the_store_for_all_replicas(world: World, alice: str) -> None:
    world.wall_ms += 120_000
    world.service.account_logins = SlidingWindow(2, 60)
    for status in (403, 403, 429):
        assert change(world, alice, "a guess").status == status
        world.service.account_logins = SlidingWindow(2, 60)  # another replica has seen none
        world.service.address_logins = SlidingWindow(1_000, 60)


def test_a_malformed_body_costs_the_address_an_attempt(world: World, alice: str) -> None:
    world.service.address_logins = SlidingWindow(2, 60)
    asked = request("POST", PATH, {}, alice)
    for body, status in ((b"{", 400), (b"{}", 400), (b"{}", 429)):
        assert getattr(world.run(msgspec.structs.replace(asked, body=body)), "status", None) == status


def test_a_blocked_address_changes_no_password(world: World, alice: str) -> None:
    blocked = block_address("192.0.2.1", world.wall_ms + 60_000)
    assert world.perform(BlockLogins(block=blocked, most=10, now_ms=world.wall_ms))
    assert told(change(world, alice)) == (429, "login_rate_limit")


@pytest.mark.parametrize("kind", [VerifyPassword, HashPassword])
def test_a_full_hasher_gets_503_and_changes_nothing(world: World, alice: str, kind: type[Effect[object]]) -> None:
    def full(place: int, effect: Effect[object]) -> None:
        if isinstance(effect, kind):
            raise Overloaded

    assert told(change(world, alice, before=full)) == (503, "overloaded")
    assert log_in(world, PASSWORD).status == 200


def test_neither_password_reaches_the_store(world: World, alice: str) -> None:
    stored: list[StorageEffect[object]] = []

    def keep(place: int, effect: Effect[object]) -> None:
        if isinstance(effect, StorageEffect):
            stored.append(effect)

    assert change(world, alice, before=keep).status == 204
    hashes = [msgspec.structs.asdict(effect) for effect in stored if isinstance(effect, ChangePassword)]
    assert [(each["checked_hash"], each["password_hash"]) for each in hashes] == [
        (f"hashed {PASSWORD}", f"hashed {NEW}")
    ]
    others = [effect for effect in stored if not isinstance(effect, ChangePassword)]
    assert not any(secret in repr(others) for secret in (PASSWORD, NEW))
