"""Rate limits and the client's address, as configured (PROTOCOL 9, 2.7)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.chat import PASSWORD, User
from tests.support.server import ServerProcess

_addresses = itertools.count(1)


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    directory: Path = tmp_path_factory.mktemp("strict")
    settings = {
        "MESSAGING__MAX_MESSAGES_PER_USER_PER_WINDOW": 3, "MESSAGING__MAX_MESSAGES_PER_IP_PER_WINDOW": 5,
        "SESSION__MAX_LOGINS_PER_ADDRESS_PER_WINDOW": 12, "SESSION__MAX_LOGINS_PER_ACCOUNT_PER_WINDOW": 4,
        "TRUSTED_PROXIES": "127.0.0.1/32,10.0.0.0/8",
    }  # fmt: skip
    with ServerProcess(directory, "--storage", "memory", **settings).start() as server:
        yield server


@pytest.fixture
def address() -> str:
    """Return a client address unique to this test, as forwarded by a trusted proxy."""
    return f"198.51.100.{next(_addresses)}"


@pytest.fixture
def alice(strict: ServerProcess, address: str) -> User:
    chat = strict.chat()
    chat.http.headers["x-forwarded-for"] = address
    return chat.user()


def post(user: User, channel: str, forwarded: str | None = None) -> httpx.Response:
    headers = {"x-forwarded-for": forwarded} if forwarded is not None else {}
    return user.post(f"/channels/{channel}/messages", {"content": "x"}, **headers)


def test_the_user_limit_is_the_configured_one(alice: User) -> None:
    channel = alice.channel(alice.guild())
    assert [post(alice, channel).status_code for _ in range(4)] == [200, 200, 200, 429]
    refused = post(alice, channel)
    assert refused.json()["error"] == "message_rate_limit"
    assert 0 < int(refused.headers["retry-after"]) <= 61
    assert len(alice.history(channel)) == 3


def test_the_address_limit_is_the_configured_one(strict: ServerProcess, alice: User, address: str) -> None:
    guild = alice.guild()
    channel = alice.channel(guild)
    chat = strict.chat()
    chat.http.headers["x-forwarded-for"] = address
    bob = chat.user()
    bob.join(alice.invite(guild))
    assert [post(user, channel).status_code for user in (alice, alice, alice, bob, bob)] == [200] * 5
    assert post(bob, channel).json()["error"] == "ip_rate_limit"
    assert post(bob, channel, "203.0.113.200").status_code == 200, "another address has its own count"


def test_the_address_is_the_right_most_untrusted_hop(alice: User, address: str) -> None:
    """Addresses that the client itself puts in front of the chain have no effect."""
    channel = alice.channel(alice.guild())
    for number in range(3):
        assert post(alice, channel, f"1.2.3.{number}, {address}, 10.0.0.7").status_code == 200
    devices = alice.ok(alice.get("/sessions/devices"))
    assert [line["ip_address"] for line in devices] == [address]


def test_attempts_on_one_account_are_limited(alice: User, address: str) -> None:
    def attempt(secret: str, forwarded: str) -> httpx.Response:
        body = {"identifier": alice.name, "secret": secret, "device": {"device_id": "d"}}
        return alice.chat.http.post("/sessions/login", json=body, headers={"x-forwarded-for": forwarded})

    statuses = [attempt("wrong password", "192.0.2.1").status_code for _ in range(6)]
    assert statuses == [401, 401, 401, 401, 429, 429]
    refused = attempt(PASSWORD, "192.0.2.1")
    assert (refused.status_code, refused.json()["error"]) == (429, "login_rate_limit")
    assert int(refused.headers["retry-after"]) > 0
    assert attempt(PASSWORD, "192.0.2.99").status_code == 200, "one guesser locks nobody out"
    many = [attempt("wrong password", f"203.0.113.{number // 4}").status_code for number in range(45)]
    assert many == [401] * 33 + [429] * 12, "40 from all addresses together, the fixture's two among them"
    assert attempt(PASSWORD, address).status_code == 200, "many guessers neither: the owner has a session there"


def test_registrations_from_one_address_are_limited(strict: ServerProcess, address: str) -> None:
    http = strict.chat().http
    statuses = [
        http.post(
            "/users/register",
            json={"username": f"many-{number}-{address}", "password": PASSWORD},
            headers={"x-forwarded-for": address},
        ).status_code
        for number in range(13)
    ]
    assert statuses == [201] * 12 + [429]


def test_garbage_addresses_share_the_proxy_s_own(alice: User) -> None:
    """Clients cannot create new keys: an invalid address counts as the peer's."""
    channel = alice.channel(alice.guild())
    post(alice, channel, "x" * 500)
    post(alice, channel, "not an address, neither is this")
    login = alice.chat.http.post(
        "/sessions/login",
        json={"identifier": alice.name, "secret": PASSWORD, "device": {"device_id": "d2"}},
        headers={"x-forwarded-for": "garbage"},
    )
    assert login.status_code == 200
    devices = {line["device_id"]: line["ip_address"] for line in alice.ok(alice.get("/sessions/devices"))}
    assert devices["d2"] == "127.0.0.1"
