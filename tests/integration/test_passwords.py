"""Changing and setting passwords, and deleting accounts, on two replicas with one database (PROTOCOL 4.8, 4.9)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

from openguild_proto.gateway.close_codes import GatewayClose
from openguild_runtime.embedded import EmbeddedNats
from tests.support.chat import PASSWORD, Chat, User, closed_with
from tests.support.server import ServerProcess
from tests.support.waiting import PATIENCE_SECS, wait_until

NEW = "battery staple new"
Replicas = tuple[ServerProcess, ServerProcess]


@pytest.fixture(scope="module")
def replicas(
    tmp_path_factory: pytest.TempPathFactory, module_database: str, nats_server: EmbeddedNats
) -> Iterator[Replicas]:
    """The first one has an admin socket."""
    with TemporaryDirectory(prefix="og-") as directory:  # short enough for a socket
        settings = {"DATABASE_URL": module_database, "NATS__URL": nats_server.url}
        socket = str(Path(directory) / "admin.sock")
        one = ServerProcess(tmp_path_factory.mktemp("one"), **settings, ADMIN_SOCKET=socket)
        two = ServerProcess(tmp_path_factory.mktemp("two"), **settings)
        with one.start(), two.start():
            yield one, two


@pytest.fixture
def here(replicas: Replicas) -> Iterator[Chat]:
    chat = replicas[0].chat()
    yield chat
    chat.close()


@pytest.fixture
def there(replicas: Replicas) -> Iterator[Chat]:
    chat = replicas[1].chat()
    yield chat
    chat.close()


@pytest.fixture
def alice(here: Chat) -> User:
    return here.user()


def log_in(chat: Chat, name: str, secret: str, device: str = "another") -> httpx.Response:
    body = {"identifier": name, "secret": secret, "device": {"device_id": device}}
    return chat.http.post("/sessions/login", json=body)


def change(user: User, new: str = NEW, current: str = PASSWORD) -> httpx.Response:
    return user.post("/users/@me/password", {"current_password": current, "new_password": new})


def told(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"] if answer.content else ""


def set_password(server: ServerProcess, *arguments: str, stdin: str = "", status: int = 0) -> dict[str, Any]:
    done = server.run_command("admin", "password", *arguments, stdin=stdin)
    assert done.returncode == status, done.stdout + done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_a_change_closes_the_sockets_of_other_devices_on_every_replica(here: Chat, there: Chat, alice: User) -> None:
    channel = alice.channel(alice.guild())
    laptop = there.login(alice.name, "laptop")
    with (
        alice.stream(channel) as own,
        laptop.stream(channel) as stream,
        laptop.notifications() as notifications,
        connect(f"{there.base_url.replace('http', 'ws')}/gateway", proxy=None) as gateway,
    ):
        gateway.send(json.dumps({"type": "auth", "token": laptop.token}))
        while json.loads(gateway.recv(timeout=PATIENCE_SECS))["type"] != "ready":
            pass
        assert told(change(alice)) == (204, "")
        assert closed_with(stream) == closed_with(notifications) == 4401
        assert closed_with(gateway) == GatewayClose.SESSION_ENDED
        posted = alice.say(channel, "still here")
        while json.loads(own.recv(timeout=PATIENCE_SECS)).get("sequence") != posted["sequence"]:
            pass
    assert told(laptop.get("/users/me")) == (401, "unauthorized")
    assert told(log_in(there, alice.name, PASSWORD)) == (401, "invalid_credentials")
    assert log_in(there, alice.name, NEW).status_code == 200


def test_a_wrong_current_password_is_limited_on_all_replicas_together(here: Chat, there: Chat, alice: User) -> None:
    """Ten in a minute of one account at one address; the registration's own login was the first two."""
    same = User(there, alice.name, alice.token, alice.refresh_token, alice.user_id)
    answers = [told(change(user, current="a wrong guess")) for _ in range(5) for user in (alice, same)]
    assert answers[:4] == [(403, "wrong_password")] * 4
    assert answers[-1] == (429, "login_rate_limit")
    assert set(answers) == {(403, "wrong_password"), (429, "login_rate_limit")}
    assert told(change(same)) == (429, "login_rate_limit"), "the right one, too"
    assert alice.get("/users/me").status_code == 200, "the token is as good as before"


def test_of_changes_at_once_one_succeeds(here: Chat, there: Chat, alice: User) -> None:
    laptop = there.login(alice.name, "laptop")
    with ThreadPoolExecutor(2) as both:
        answers = list(both.map(lambda user: change(user, f"the password of {user.token[-8:]}"), (alice, laptop)))
    (won,) = [user for user, answer in zip((alice, laptop), answers, strict=True) if answer.status_code == 204]
    assert sorted(answer.status_code for answer in answers)[1] in {401, 403}
    assert log_in(here, alice.name, f"the password of {won.token[-8:]}").status_code == 200


def test_an_operator_sets_a_generated_password(replicas: Replicas, here: Chat, there: Chat, alice: User) -> None:
    laptop = there.login(alice.name, "laptop")
    with alice.notifications() as own, laptop.notifications() as stream:
        said = set_password(replicas[0], "--user", alice.name.upper())
        assert closed_with(own) == closed_with(stream) == 4401
    generated = said.pop("password")
    assert said == {"user_id": alice.user_id, "username": alice.name, "devices_logged_out": 2}
    assert re.fullmatch(r"[a-z2-9]{5}(-[a-z2-9]{5}){3}", generated)
    assert told(alice.get("/users/me")) == (401, "unauthorized")
    wait_until(lambda: laptop.get("/users/me").status_code == 401)
    assert told(log_in(there, alice.name, PASSWORD)) == (401, "invalid_credentials")
    assert log_in(there, alice.name, generated).status_code == 200
    assert set_password(replicas[0], "--user", alice.user_id)["password"] != generated


def test_an_operator_sets_a_password_of_standard_input(replicas: Replicas, here: Chat, alice: User) -> None:
    longest = "é" * 1_024
    for given in (NEW, longest):
        said = set_password(replicas[0], "--user", alice.name, "--password-stdin", stdin=f"{given}\n")
        assert "password" not in said
        assert log_in(here, alice.name, given).status_code == 200
    for given, problem in (("", "must be provided"), ("7 chars", "at least 8"), (longest + "x", "at most 1024")):
        done = replicas[0].run_command("admin", "password", "--user", alice.name, "--password-stdin", stdin=given)
        assert done.returncode == 1
        assert problem in done.stderr
    assert log_in(here, alice.name, longest).status_code == 200, "nothing has changed"


def test_the_audit_log_tells_of_it_without_the_password(replicas: Replicas, alice: User) -> None:
    generated = set_password(replicas[0], "--user", alice.name)["password"]
    set_password(replicas[0], "--user", alice.name, "--password-stdin", stdin=NEW)
    log = replicas[0].log_path.read_text()
    records = [record for record in replicas[0].records() if record["target"] == "openguild.audit"][-2:]
    assert [record["request"] for record in records] == [{"command": "password", "user": alice.name}] * 2
    assert [record["answer"]["devices_logged_out"] for record in records] == [1, 0]
    assert not any(secret in log for secret in (generated, NEW, "argon2id"))


def test_a_deleted_account_is_gone_on_every_replica(here: Chat, there: Chat, alice: User) -> None:
    bob = there.user()
    guild = alice.guild()
    channel = alice.channel(guild)
    bob.join(alice.invite(guild))
    bob.say(channel, "so long")
    phone = here.login(bob.name, "phone")
    with bob.stream(channel) as stream, phone.notifications() as notifications:
        answer = phone.post("/users/@me/delete", {"current_password": PASSWORD})
        assert told(answer) == (204, "")
        assert closed_with(notifications) == 4401
        assert closed_with(stream) in {4401, 4403}, "the guild was left before"
    for user in (bob, phone):
        wait_until(lambda user=user: user.get("/users/me").status_code == 401, what="the token is refused")
    assert told(log_in(there, bob.name, PASSWORD)) == (401, "invalid_credentials")
    assert [line["user_id"] for line in alice.get(f"/guilds/{guild}/members").json()] == [alice.user_id]
    assert [line["content"] for line in alice.get(f"/channels/{channel}/messages").json()] == ["so long"]
    posted = alice.say(channel, f"<@{bob.user_id}>", allowed_mentions={"users": [bob.user_id]})
    assert posted["sequence"] == 2
    assert told(alice.post("/users/@me/delete", {"current_password": PASSWORD})) == (409, "last_owner")


def delete_account(server: ServerProcess, user: str, status: int = 0) -> dict[str, Any]:
    done = server.run_command("admin", "delete-account", "--user", user)
    assert done.returncode == status, done.stdout + done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_an_operator_deletes_an_account(replicas: Replicas, there: Chat, alice: User) -> None:
    guild = alice.guild()
    refused = delete_account(replicas[0], alice.name, status=1)["error"]
    assert refused.startswith(
        "first delete the guilds of which this user is the only owner, or make another member owner"
    )
    assert guild in refused
    assert alice.chat.http.delete(f"/guilds/{guild}", headers=alice.auth).status_code == 204
    with there.login(alice.name, "laptop").notifications() as stream:
        assert delete_account(replicas[0], alice.name) == {"deleted": alice.user_id, "username": alice.name}
        assert closed_with(stream) == 4401
    (record,) = [each for each in replicas[0].records() if each["target"] == "openguild.audit"][-1:]
    assert record["answer"]["deleted"] == alice.user_id
    unknown = {"error": f"user: there is no {alice.name!r}"}
    assert delete_account(replicas[0], alice.name, status=1) == unknown
    assert delete_account(replicas[0], alice.user_id, status=1) == {
        "error": "user: there is no such account of this server"
    }


def test_unknown_users_are_refused(replicas: Replicas) -> None:
    unknown = "0198c0de-0000-4000-8000-0000000000ff"
    assert set_password(replicas[0], "--user", "nobody-at-all", status=1) == {
        "error": "user: there is no 'nobody-at-all'"
    }
    assert set_password(replicas[0], "--user", unknown, status=1) == {"error": "user: there is no such account"}


def test_without_a_server_there_is_one_line(replicas: Replicas, tmp_path: Path) -> None:
    away = ServerProcess(tmp_path, ADMIN_SOCKET=str(tmp_path / "none.sock"))
    done = away.run_command("admin", "password", "--user", "alice")
    assert (done.returncode, done.stdout) == (1, "")
    assert "no server listens" in done.stderr


def test_only_one_of_several_workers_sets_it(
    tmp_path: Path, new_database: Callable[[], str], nats_server: EmbeddedNats
) -> None:
    with TemporaryDirectory(prefix="og-") as directory:
        path = Path(directory) / "pair.sock"
        settings = {"DATABASE_URL": new_database(), "NATS__URL": nats_server.url, "ADMIN_SOCKET": str(path)}
        with ServerProcess(tmp_path, "--workers", "2", **settings).start() as pair:
            wait_until(lambda: len(list(path.parent.glob("pair.sock.*"))) == 2, what="both sockets")
            chat = pair.chat()
            alice = chat.user()
            said = set_password(pair, "--user", alice.name)
            assert (said["worker"], said["devices_logged_out"]) == (0, 1)
            assert log_in(chat, alice.name, said["password"]).status_code == 200
            assert delete_account(pair, alice.name)["worker"] == 0
            assert pair.stop() == 0
