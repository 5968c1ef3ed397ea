"""Guesses of passwords: they cost attempts, tell nothing, and lock nobody out."""

from __future__ import annotations

import msgspec
import pytest

from openguild_proto.effects.attempts import BlockLogins, LoginBlock
from openguild_proto.http.message import Response
from openguild_proto.operations.attempts import block_account, block_address
from openguild_proto.policy.ratelimit import SlidingWindow
from tests.support.world import PASSWORD, World, decoded, request


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def alice(world: World) -> str:
    return world.user("alice")


@pytest.fixture
def channel(world: World, alice: str) -> str:
    guild = decoded(world.ask("POST", "/guilds", {"name": "g"}, alice))["guild_id"]
    return str(decoded(world.ask("POST", f"/guilds/{guild}/channels", {"name": "c"}, alice))["channel_id"])


class Guessing:
    """Logins as alice from any address; `limit` per address, 2 per account and address, 20 per account."""

    def __init__(self, world: World, limit: int = 1_000) -> None:
        self.world = world
        world.service.address_logins = SlidingWindow(limit, 60)
        world.service.account_logins = SlidingWindow(2, 60)

    def login(self, address: str, secret: str = "a wrong guess", name: str = "alice", body: bytes | None = None) -> int:
        login = {"identifier": name, "secret": secret, "device": {"device_id": "d"}}
        asked = request("POST", "/sessions/login", login)
        answer = self.world.run(
            msgspec.structs.replace(asked, client_address=address, body=asked.body if body is None else body)
        )
        assert isinstance(answer, Response)
        return answer.status


def test_guesses_from_elsewhere_do_not_lock_the_owner_out(world: World, alice: str) -> None:
    """alice has a session at 192.0.2.1."""
    guessing = Guessing(world)
    world.wall_ms += 120_000  # registering and logging in were attempts too
    guesses = [guessing.login(f"198.51.100.{number % 25}") for number in range(50)]
    assert guesses.count(401) == 20, "twenty for all addresses"
    assert guessing.login("203.0.113.1", PASSWORD) == 429, "a new address waits"
    for _ in range(2):
        assert guessing.login("192.0.2.1", PASSWORD) == 200, "where the owner is at home there is no waiting"
    assert guessing.login("192.0.2.1", PASSWORD) == 429, "but guessing is limited there as everywhere"


def test_a_few_guesses_from_elsewhere_concern_nobody(world: World, alice: str) -> None:
    guessing = Guessing(world)
    assert [guessing.login("198.51.100.1") for _ in range(3)] == [401, 401, 429]
    assert guessing.login("203.0.113.1", PASSWORD) == 200


def test_a_name_that_nobody_has_asks_as_much_of_the_store(world: World, alice: str) -> None:
    """Also where the account's limit has been reached and no hash covers the difference."""
    guessing = Guessing(world)
    effects: dict[str, list[str]] = {}
    for name in ("alice", "nobody"):
        for number in range(20):
            guessing.login(f"198.51.100.{number}", name=name)
        seen = effects[name] = []
        login = {"identifier": name, "secret": "x", "device": {"device_id": "d"}}
        asked = msgspec.structs.replace(request("POST", "/sessions/login", login), client_address="203.0.113.1")
        world.run(asked, before=lambda place, effect, seen=seen: seen.append(type(effect).__name__))
    assert effects["alice"] == effects["nobody"] == ["CountAttempt", "FindUserByName", "ListSessionAddresses"]


@pytest.mark.parametrize("path", ["/users/register", "/sessions/login"])
def test_a_malformed_body_costs_an_attempt(world: World, path: str) -> None:
    Guessing(world, 3)
    for body, status in ((b"{", 400), (b"{}", 400), (b"\xff", 400), (b"{", 429), (b"{}", 429)):
        answer = world.run(msgspec.structs.replace(request("POST", path, {}), body=body))
        assert getattr(answer, "status", None) == status
    elsewhere = msgspec.structs.replace(request("POST", path, {}), client_address="192.0.2.2")
    assert getattr(world.run(elsewhere), "status", None) == 400


def test_an_attempt_is_charged_under_every_key_or_under_none(world: World, alice: str) -> None:
    """What the account refuses costs the address nothing: other names may still be tried from it."""
    guessing = Guessing(world, 5)
    assert [guessing.login("198.51.100.1") for _ in range(9)] == [401] * 2 + [429] * 7
    assert [guessing.login("198.51.100.1", name=f"n{number}") for number in range(4)] == [401] * 3 + [429]


def block(world: World, wanted: LoginBlock) -> None:
    assert world.perform(BlockLogins(block=wanted, most=10, now_ms=world.wall_ms))


@pytest.mark.parametrize(
    ("blocked", "address", "elsewhere"),
    [("203.0.113.1", "203.0.113.1", "203.0.113.2"), ("2001:db8::1", "2001:db8::ffff", "2001:db8:0:1::1")],
)
def test_a_blocked_address_is_refused_until_the_end(
    world: World, alice: str, blocked: str, address: str, elsewhere: str
) -> None:
    guessing = Guessing(world)
    world.wall_ms += 120_000
    block(world, block_address(blocked, world.wall_ms + 60_000))
    assert guessing.login(address, PASSWORD) == 429
    register = request("POST", "/users/register", {"username": "bob", "password": PASSWORD})
    refused = world.run(msgspec.structs.replace(register, client_address=address))
    assert isinstance(refused, Response)
    assert (refused.status, dict(refused.headers)["retry-after"]) == (429, "60")
    assert guessing.login(elsewhere, PASSWORD) == 200
    world.wall_ms += 60_000
    assert guessing.login(address, PASSWORD) == 200


def test_a_blocked_account_is_open_where_its_owner_has_a_session(world: World, alice: str) -> None:
    """alice has a session at 192.0.2.1."""
    guessing = Guessing(world)
    world.wall_ms += 120_000
    block(world, block_account(" ALICE ", world.wall_ms + 60_000))
    assert guessing.login("203.0.113.1", PASSWORD) == 429
    assert guessing.login("192.0.2.1", PASSWORD) == 200
    assert guessing.login("203.0.113.1", name="bob") == 401, "others are not concerned"


def test_only_addresses_can_be_blocked_as_addresses() -> None:
    for text in ("", "alice", "10.0.0.0/8", "203.0.113.1:80"):
        with pytest.raises(ValueError, match="is not an IP address"):
            block_address(text, 0)


def test_whose_password_was_wrong_is_told_to_the_operator_only(world: World, alice: str) -> None:
    answers = {}
    for name in ("alice", "nobody"):
        login = {"identifier": name, "secret": "x", "device": {"device_id": "d"}}
        found = world.run(request("POST", "/sessions/login", login))
        assert isinstance(found, Response)
        answers[name] = found
    assert answers["alice"].user_id is not None
    assert answers["nobody"].user_id is None
    assert decoded(answers["alice"])["error"] == decoded(answers["nobody"])["error"]
    assert answers["alice"].user_id.encode() not in answers["alice"].body
