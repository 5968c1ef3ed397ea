"""A server works with every number at its maximum; invalid numbers in requests get 400 and never 500."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio
import pytest

from openguild_proto.limits import MAX_INVITE_TTL_SECS, MAX_INVITE_USES, MAX_SEQUENCE
from openguild_runtime.embedded import EmbeddedNats
from openguild_runtime.server.retention import prune
from openguild_runtime.storage.postgres import PostgresStorage
from openguild_runtime.system.clocks_and_entropy import ClocksAndEntropy
from tests.support.chat import PASSWORD, User, receive, texts
from tests.support.numbers import NUMBERS
from tests.support.server import ServerProcess

SOME = {"port": None, "workers": None, "drain.delay_secs": 0}  # the test needs its own port, and waits for the end
MOST = {number.key: number.most for number in NUMBERS if number.key not in SOME}
HUGE = (2**31, 2**53, 2**63 - 1, 2**63, 2**64, 10**19, 10**400)


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, module_database: str, nats_server: EmbeddedNats
) -> Iterator[ServerProcess]:
    settings = {key.upper().replace(".", "__"): value for key, value in MOST.items()}
    with TemporaryDirectory(prefix="og-") as short:
        settings |= {"DATABASE_URL": module_database, "NATS__URL": nats_server.url}
        settings["ADMIN_SOCKET"] = str(Path(short) / "admin.sock")
        with ServerProcess(tmp_path_factory.mktemp("most"), **settings).start() as process:
            yield process
            assert [line for line in process.records() if line["level"] == "ERROR"] == []


@pytest.fixture
def alice(server: ServerProcess) -> User:
    return server.chat().user()


def live(server: ServerProcess, alice: User) -> None:
    """Register, log in, refresh, invite, post and receive the post."""
    guild = alice.guild()
    channel = alice.channel(guild)
    bob = server.chat().user()
    bob.join(alice.invite(guild, max_uses=MAX_INVITE_USES, expires_in_secs=MAX_INVITE_TTL_SECS))
    with bob.stream(channel, since=0) as stream, bob.notifications():
        alice.say(channel, "hello")
        assert texts(receive(stream, 1)) == ["hello"]
    pair = alice.ok(alice.chat.http.post("/sessions/refresh", json={"refresh_token": bob.refresh_token}))
    assert pair["access_expires_at"] < pair["refresh_expires_at"] < "2100"
    wrong = {"identifier": bob.name, "secret": PASSWORD + "x", "device": {"device_id": "d"}}
    assert alice.chat.http.post("/sessions/login", json=wrong).status_code == 401
    alice.ok(alice.post(f"/channels/{channel}/read"))
    assert alice.get("/ready").json()["status"] == "ready"


def test_every_number_at_its_most_serves(server: ServerProcess, alice: User, module_database: str) -> None:
    live(server, alice)
    anyio.run(prune_once, module_database)


async def prune_once(url: str) -> None:
    async with anyio.create_task_group() as tasks:
        storage = PostgresStorage(
            url,
            tasks,
            pool_size=MOST["database.pool_size"],
            statement_timeout_secs=MOST["database.statement_timeout_secs"],
        )
        await storage.start()
        await prune(storage, ClocksAndEntropy(), MOST["session.login_window_secs"])
        await storage.aclose()
        tasks.cancel_scope.cancel()


def test_what_admin_set_takes_serves(server: ServerProcess, alice: User) -> None:
    """One key over the socket; the others take the same path (tests/runtime/test_config_numbers.py)."""
    key = "session.login_window_secs"
    done = server.run_command("admin", "set", key, "1")
    assert (done.returncode, json.loads(done.stdout)["value"]) == (0, 1)
    live(server, alice)
    done = server.run_command("admin", "set", key, "99999999999")
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"] == f"{key}: must be more than 0 and at most {MOST[key]}"
    live(server, alice)


def test_numbers_of_a_query_are_never_500(alice: User) -> None:
    channel = alice.channel(alice.guild())
    alice.say(channel, "one")
    lists = [f"/channels/{channel}/events", "/guilds", "/channels/unread"]
    for path in lists:
        names = ("limit", "since", "before", "epoch") if path.endswith("events") else ("limit", "after")
        for name in names:
            for number in (
                *HUGE,
                *(-each for each in HUGE),
                0,
                -1,
                "1e400",
                "nan",
                "inf",
                "1.5",
                "",
                "+1",
                "١",
                f"{2**63}.x",
            ):
                answer = alice.get(path, params={name: str(number)})
                assert answer.status_code in (200, 400), (path, name, number, answer.text)
    both = alice.get(
        f"/channels/{channel}/events", params={"since": MAX_SEQUENCE, "epoch": MAX_SEQUENCE, "limit": MAX_SEQUENCE}
    )
    assert both.status_code == 400


def test_numbers_of_a_body_are_never_500(alice: User) -> None:
    guild = alice.guild()
    channel = alice.channel(guild)
    alice.say(channel, "one")
    values = [
        *map(str, HUGE),
        *(f"-{each}" for each in HUGE),
        "0",
        "1.5",
        "1e400",
        "1e2",
        "-0",
        "true",
        '"1"',
        "[]",
        "{}",
        "9" * 5_000,
    ]
    for path, names in (
        (f"/guilds/{guild}/invites", ("max_uses", "expires_in_secs")),
        (f"/channels/{channel}/read", ("sequence",)),
        (f"/channels/{channel}/messages", ("content", "nonce")),
        ("/sessions/login", ("identifier", "secret", "device")),
    ):
        for name in names:
            for value in values:
                answer = alice.request(
                    "POST", path, content=f'{{"{name}": {value}}}', headers={"content-type": "application/json"}
                )
                assert answer.status_code < 500, (path, name, value[:40], answer.text)


def test_numbers_of_a_stream_are_never_500(alice: User) -> None:
    channel = alice.channel(alice.guild())
    upgrade = {
        "connection": "upgrade",
        "upgrade": "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": "x" * 22 + "==",
    }
    for name in ("since", "epoch"):
        for number in (*HUGE, *(-each for each in HUGE), "nan", "1e400", "1.5"):
            answer = alice.request("GET", f"/channels/{channel}/ws", params={name: str(number)}, headers=upgrade)
            assert answer.status_code in (101, 400), (name, number, answer.text)
