"""Tokens and passwords: a wrong key on one replica, and passwords guessed for 200 accounts from 200 addresses."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from openguild_proto.canonical.keys import fingerprint, parse_seed
from openguild_runtime.embedded import EmbeddedNats
from tests.incidents.conftest import Incident, pod
from tests.support.chat import PASSWORD, closed_with
from tests.support.oncall import OnCall
from tests.support.server import SIGNING_KEY, ServerProcess

NEW = "battery staple new"
OTHER_KEY = "A" * 43
ACCOUNTS = 200


def test_one_replica_has_a_wrong_key(
    database_url: str, nats_server: EmbeddedNats, tmp_path: Path, walk: Callable[..., Incident]
) -> None:
    servers = [pod(tmp_path, DATABASE_URL=database_url, NATS__URL=nats_server.url) for _ in range(3)]
    odd = servers[2]
    odd.settings["SESSION__SIGNING_KEY"] = OTHER_KEY
    right, wrong = (fingerprint(parse_seed(key).public) for key in (SIGNING_KEY, OTHER_KEY))

    def restart() -> None:
        assert odd.stop() == 0
        odd.settings["SESSION__SIGNING_KEY"] = SIGNING_KEY
        odd.start()

    with servers[0].start(), servers[1].start(), odd.start():
        oncall = OnCall(tmp_path, {f"openguild-server-{place}": server for place, server in enumerate(servers)})
        oncall.rollouts["restart"] = restart
        incident = walk("tokens-refused", *servers, oncall=oncall)
        alice = servers[0].chat().user()
        there = odd.chat()
        for _ in range(25):
            assert there.http.get("/guilds", headers=alice.auth).status_code == 401
        told = incident.fires("OpenGuildTokenKeysDiffer", instance=f"127.0.0.1:{odd.port}")
        assert wrong in told["annotations"]["summary"]
        assert "only 33.33% of" in told["annotations"]["summary"]
        incident.fires("OpenGuildTokensRefused", cause="bad_signature", instance=f"127.0.0.1:{odd.port}")
        said = incident.ask()
        assert re.findall(r'fingerprint="(\w+)",use="signing"', said) == [right, right, wrong]
        assert 'openguild_unauthorized_total{cause="bad_signature"} 25.0' in said.partition("openguild-server-2")[2]
        incident.mend()
        incident.ends("OpenGuildTokenKeysDiffer", "OpenGuildTokensRefused")
        assert re.findall(r'fingerprint="(\w+)",use="signing"', incident.ask()) == [right] * 3
        assert there.http.get("/guilds", headers=alice.auth).status_code == 200


def test_passwords_are_tried_on_200_accounts_from_200_addresses(
    database_url: str, tmp_path: Path, walk: Callable[..., Incident]
) -> None:
    server = pod(tmp_path, DATABASE_URL=database_url, TRUSTED_PROXIES="127.0.0.1")
    with server.start(), ThreadPoolExecutor(8) as many:
        incident = walk("logins-fail", server)
        chat = server.chat()
        names = [f"known-{number}" for number in range(ACCOUNTS)]

        def register(name: str) -> int:
            return chat.http.post("/users/register", json={"username": name, "password": PASSWORD}).status_code

        assert set(many.map(register, names)) == {201}

        def attempt(number: int) -> int:
            login = {"identifier": names[number], "secret": "Summer2026!", "device": {"device_id": "x"}}
            address = {"x-forwarded-for": f"198.51.{number // 100}.{number % 100 + 1}"}
            return chat.http.post("/sessions/login", json=login, headers=address).status_code

        assert set(many.map(attempt, range(ACCOUNTS))) == {401}, "no limit catches it"
        told = incident.fires("OpenGuildLoginsFail")
        assert told["labels"]["severity"] == "page"
        incident.fires("OpenGuildLoginsFailHere", instance=f"127.0.0.1:{server.port}")
        top, _, counted = incident.ask().rpartition("\n{\n")
        said = json.loads("{" + counted)
        assert "LOGINS FAIL FROM" in top
        assert "LOGINS FAIL FOR" in top
        assert re.search(r"^known-\d+ +1$", top, re.MULTILINE)
        assert (said["failed"], said["addresses"]) == (ACCOUNTS, ACCOUNTS)
        assert said["by_cause"] == {"wrong_password": ACCOUNTS}
        assert [line["failed"] for line in said["top"]] == [1] * 5
        assert "198.51.0.1" in incident.mend(0, address="198.51.0.1")
        assert names[1] in incident.mend(1, account=names[1])
        assert [attempt(number) for number in (0, 1, 2)] == [429, 429, 401]
        assert "198.51.0.1" in incident.try_row("og admin blocks")
        assert '"was_blocked": true' in incident.try_row("og admin unblock", address="198.51.0.1")
        assert attempt(0) == 401
        assert '"value": false' in incident.mend(2)
        closed = chat.http.post("/users/register", json={"username": "bot-1", "password": "correct horse battery"})
        assert closed.json()["error"] == "registration_closed"
        incident.ends("OpenGuildLoginsFail", "OpenGuildLoginsFailHere")
        assert '"value": true' in incident.run("og admin set registration.enabled true")


def log_in(server: ServerProcess, name: str, secret: str) -> int:
    login = {"identifier": name, "secret": secret, "device": {"device_id": "of the owner"}}
    return server.chat().http.post("/sessions/login", json=login).status_code


def generated(said: str) -> str:
    (found,) = re.findall(r'"password": "([^"]+)"', said)
    return str(found)


def test_a_user_has_forgotten_their_password(
    database_url: str, nats_server: EmbeddedNats, tmp_path: Path, walk: Callable[..., Incident]
) -> None:
    servers = [pod(tmp_path, DATABASE_URL=database_url, NATS__URL=nats_server.url) for _ in range(2)]
    with servers[0].start(), servers[1].start():
        incident = walk("forgotten-password", *servers)
        alice = servers[1].chat().user()
        assert incident.ask(user="nobody-of-this-name").count("there is no 'nobody-of-this-name'") == 2
        assert '"blocks": []' in incident.ask(user=alice.name)
        said = incident.mend(user=alice.name)
        assert said.count("# pod/") == 1, "one replica"
        assert log_in(servers[1], alice.name, PASSWORD) == 401
        assert log_in(servers[1], alice.name, generated(said)) == 200
        found = servers[1].chat()
        assert found.http.get("/users/me", headers=alice.auth).status_code == 401


def test_an_account_is_taken_over(
    database_url: str, nats_server: EmbeddedNats, tmp_path: Path, walk: Callable[..., Incident]
) -> None:
    servers = [pod(tmp_path, DATABASE_URL=database_url, NATS__URL=nats_server.url) for _ in range(2)]
    with servers[0].start(), servers[1].start():
        incident = walk("account-taken-over", *servers)
        alice = servers[0].chat().user()
        thief = servers[1].chat().login(alice.name, "of the thief")
        for current in ("a guess", "another"):
            body = {"current_password": current, "new_password": NEW}
            assert thief.post("/users/@me/password", body).json()["error"] == "wrong_password"
        with thief.notifications() as stream:
            said = incident.ask(user=alice.name)
            assert '"address": "127.0.0.1"' in said
            assert re.search(rf"LOGINS FAIL FOR[^#]*{alice.name} +2", said), said
            password = generated(incident.mend(user=alice.name))
            assert closed_with(stream) == 4401
        assert log_in(servers[0], alice.name, password) == 200
        assert '"total": 0' in incident.ask(user=alice.name)
