"""Accounts, tokens, refresh, devices (PROTOCOL 4)."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.chat import PASSWORD, Chat, User, closed_with
from tests.support.raw import HOST, RawAnswer, ask
from tests.support.server import ServerProcess
from tests.support.waiting import wait_until


def refresh(chat: Chat, token: str):
    return chat.http.post("/sessions/refresh", json={"refresh_token": token})


@pytest.mark.parametrize(
    ("username", "password", "field"),
    [
        ("", PASSWORD, "username"),
        ("  ", PASSWORD, "username"),
        ("x" * 65, PASSWORD, "username"),
        ("a\x00b", PASSWORD, "username"),
        ("bell\x07", PASSWORD, "username"),
        ("ali\u200bce", PASSWORD, "username"),
        ("someone", "", "password"),
        ("someone", "7 chars", "password"),
        ("someone", "x" * 1025, "password"),
        ("someone", "nul\x00nul\x00nul", "password"),
    ],
)
def test_bad_names_and_passwords(username: str, password: str, field: str, chat: Chat) -> None:
    answer = chat.http.post("/users/register", json={"username": username, "password": password})
    assert (answer.status_code, answer.json()["error"]) == (400, "validation_error")
    assert [problem["field"] for problem in answer.json()["details"]] == [field]


def test_lengths_count_characters_and_names_ignore_case(chat: Chat, alice: User) -> None:
    assert chat.http.post("/users/register", json={"username": "é" * 64, "password": "é" * 8}).status_code == 201
    taken = chat.http.post("/users/register", json={"username": alice.name.upper(), "password": PASSWORD})
    assert (taken.status_code, taken.json()["error"]) == (409, "username_taken")
    assert chat.login(alice.name.upper(), "other").user_id == alice.user_id


def test_all_problems_are_told_at_once(chat: Chat) -> None:
    answer = chat.http.post("/sessions/login", json={"identifier": "", "secret": " "})
    assert [problem["field"] for problem in answer.json()["details"]] == ["identifier", "secret", "device"]


def test_an_unknown_user_costs_what_a_wrong_password_costs(tmp_path: Path) -> None:
    """Compares processor time, at the real cost of a hash: the time of an answer includes other work."""
    server = ServerProcess(tmp_path, "--storage", "memory")
    server.launched = False
    spent = {"known": 0.0, "nobody": 0.0}

    def attempt(kind: str, name: str) -> None:
        started = processor_secs()
        answer = chat.http.post(
            "/sessions/login", json={"identifier": name, "secret": "wrong password", "device": {"device_id": "d"}}
        )
        assert (answer.status_code, answer.json()["error"]) == (401, "invalid_credentials")
        spent[kind] += processor_secs() - started

    def processor_secs() -> float:
        assert server.process is not None
        fields = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    with server.start():
        chat = server.chat()
        for number in range(3):  # five attempts for each account: more are refused
            chat.user(f"known-{number}")
        for turn in range(15):
            for kind in spent:
                attempt(kind, f"{kind}-{turn % 3}")
    assert min(spent.values()) > 0.05, "hashes were made"
    assert 0.5 < spent["nobody"] / spent["known"] < 2


def test_refresh_and_revoke_work_on_the_real_database(chat: Chat, alice: User) -> None:
    answer = refresh(chat, alice.refresh_token)
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"  # PROTOCOL 2.5.3
    tokens = answer.json()
    assert tokens["refresh_token"] != alice.refresh_token
    renewed = User(chat, alice.name, tokens["access_token"], tokens["refresh_token"], alice.user_id)
    assert renewed.ok(renewed.get("/users/me"))["username"] == alice.name
    revoked = chat.http.post("/sessions/revoke", json={"refresh_token": tokens["refresh_token"]})
    assert revoked.status_code == 204
    assert refresh(chat, tokens["refresh_token"]).status_code == 401


def test_garbage_tokens(chat: Chat) -> None:
    for token, status in (("", 400), ("  ", 400), ("garbage!", 401), ("AAAAAAAAAAAAAAAAAAAAAA", 401)):
        assert refresh(chat, token).status_code == status
    for token in ("garbage!", "AAAAAAAAAAAAAAAAAAAAAA"):
        assert chat.http.post("/sessions/revoke", json={"refresh_token": token}).status_code == 204


def test_revocation_ends_the_access_token_and_the_sockets(chat: Chat, alice: User) -> None:
    channel = alice.channel(alice.guild())
    with alice.stream(channel) as stream, alice.notifications() as notifications:
        chat.http.post("/sessions/revoke", json={"refresh_token": alice.refresh_token})
        assert closed_with(stream) == closed_with(notifications) == 4401
    assert alice.get("/users/me").status_code == 401


def test_parallel_refreshes_leave_a_working_session(chat: Chat, alice: User) -> None:
    """Browser tabs refresh at once: the grace period admits all of them, and each of the answers works."""
    with ThreadPoolExecutor(8) as tabs:
        answers = list(tabs.map(lambda _: refresh(chat, alice.refresh_token), range(8)))
    assert [answer.status_code for answer in answers] == [200] * 8
    assert refresh(chat, answers[0].json()["refresh_token"]).status_code == 200
    assert alice.get("/users/me").status_code == 200


def test_reuse_of_a_rotated_token_ends_the_family(chat: Chat, alice: User, server: ServerProcess) -> None:
    token = alice.refresh_token
    newest = ""
    for _ in range(3):
        newest = refresh(chat, newest or token).json()["refresh_token"]
    assert refresh(chat, token).status_code == 401  # two rotations old: a sign of a stolen token
    assert refresh(chat, newest).status_code == 401
    wait_until(lambda: alice.get("/users/me").status_code == 401)
    wait_until(
        lambda: any(record.get("rejection") == "refresh_token_reused" for record in server.records()),
        what="the line in the log",
    )
    told = [record for record in server.records() if "refresh token reused" in record["message"]]
    (mine,) = [record for record in told if record["user_id"] == alice.user_id]
    assert mine["level"].lower() == "warning"
    assert len(mine["family_id"]) == 36


def test_devices_are_listed_and_ended(chat: Chat, alice: User) -> None:
    laptop = chat.login(alice.name, "laptop")
    devices = alice.ok(alice.get("/sessions/devices"))
    assert {line["device_id"] for line in devices} == {"test", "laptop"}
    assert all("user_agent" in line and "ip_address" in line for line in devices)
    with laptop.notifications() as stream:
        assert alice.request("DELETE", "/sessions/devices/laptop").status_code == 204
        assert closed_with(stream) == 4401
    assert laptop.get("/users/me").status_code == 401
    assert alice.request("DELETE", "/sessions/devices/laptop").status_code == 404
    assert len(alice.ok(alice.get("/sessions/devices"))) == 1


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        "BEARER {token}",
        "Basic {token}",
        "Bearer {token}x",
        "Bearer x.y",
        "Bearer {token}.z",
        "Bearer é",
    ],
)
def test_bad_bearer_headers(header: str, server: ServerProcess, alice: User) -> None:
    answer = me(server, header.format(token=alice.token))
    assert (answer.status, answer.json()["error"]) == (401, "unauthorized")
    assert answer.headers["www-authenticate"] == "Bearer"


def test_bearer_may_be_spelled_small(server: ServerProcess, alice: User) -> None:
    assert me(server, f"bearer  {alice.token} ").status == 200


def me(server: ServerProcess, authorization: str) -> RawAnswer:
    head = b"GET /users/me HTTP/1.1\r\n" + HOST + f"Authorization: {authorization}\r\n\r\n".encode("latin-1")
    return ask(server.port, head)


def test_users_me_leaves_empty_lists_out(alice: User) -> None:
    me = alice.ok(alice.get("/users/me"))
    assert me.keys() == {"user_id", "username", "display_name", "server_name", "created_at", "updated_at"}
    assert me["created_at"].endswith("Z")


def test_no_secret_is_in_an_answer(chat: Chat, alice: User) -> None:
    answer = chat.http.post("/users/register", json={"username": alice.name, "password": "do not repeat this"})
    assert "do not repeat this" not in answer.text
    answer = chat.http.get(f"/users/me?access_token={alice.token}")
    assert alice.token not in answer.text
