"""compose.yaml as a whole: it comes up in order, serves, is watched, is operated, and ends in order."""

from __future__ import annotations

import json
import time
from typing import Any

import httpx
import pytest
import yaml
from websockets.exceptions import ConnectionClosed

from tests.compose.project import Project
from tests.compose.stand_ins import COMPOSE_FILE
from tests.support.chat import Chat
from tests.support.waiting import wait_until

SERVICES = yaml.safe_load(COMPOSE_FILE.read_text())["services"]
WITH_HEALTH = ("postgres", "nats", "server", "prometheus", "alertmanager")
ONCE = ("keys", "migrate")  # these end
GRACE_SECS = float(SERVICES["server"]["stop_grace_period"].removesuffix("s"))


def answer(project: Project, service: str, path: str) -> Any:
    """The JSON of a monitor."""
    return httpx.get(f"http://127.0.0.1:{project.ports[service]}{path}", timeout=5.0, trust_env=False).json()


@pytest.mark.parametrize("name", WITH_HEALTH)
def test_it_is_healthy_and_was_never_started_again(name: str, project: Project) -> None:
    found = project.service(name)
    assert (found.health, found.restarts) == ("healthy", 0)
    assert "healthcheck" in SERVICES[name]


@pytest.mark.parametrize("name", ONCE)
def test_a_step_ends_well(name: str, project: Project) -> None:
    assert project.service(name).state["ExitCode"] == 0


def test_each_waits_for_what_it_needs(project: Project) -> None:
    pairs = [
        (name, needed, how["condition"])
        for name in project.services
        for needed, how in SERVICES[name].get("depends_on", {}).items()
    ]
    assert len(pairs) == 6
    for name, needed, condition in pairs:
        if condition == "service_healthy":
            ready = project.first_healthy(needed)
        else:
            ready = project.service(needed).moment("FinishedAt")
        assert ready <= project.service(name).moment("StartedAt"), f"{name} began before {needed}"


def test_people_chat_through_the_published_port(project: Project, chat: Chat) -> None:
    alice = chat.user()
    channel = alice.channel(alice.guild())
    with alice.stream(channel) as stream:
        alice.say(channel, "hello")
        assert json.loads(stream.recv(timeout=10))["event"]["content"]["content"] == "hello"
        told = json.loads(project.run_in("server", "openguild-server", "admin", "sessions", "--user", alice.name))
        assert [line["username"] for line in told["sessions"]] == [alice.name]


def test_an_operator_looks_inside(project: Project, chat: Chat) -> None:
    """The command of the file's comment, and its newer companions."""
    comment = "docker compose exec server openguild-server admin channels"
    assert comment in COMPOSE_FILE.read_text()
    assert json.loads(project.run_in("server", "openguild-server", "admin", "channels"))["channels"] == []
    top = json.loads(project.run_in("server", "openguild-server", "admin", "top", "--json"))
    assert top["status"] == "ready"
    assert {each["name"]: each["status"] for each in top["components"]}["nats"] == "configured"
    request_id = chat.http.get("/users/me").json()["request_id"]
    assert "unauthorized" in project.run_in("server", "openguild-server", "admin", "why", request_id)


def test_prometheus_watches_the_server_and_tells_alertmanager(project: Project) -> None:
    def up() -> bool:
        result = answer(project, "prometheus", "/api/v1/query?query=up{job='openguild-server'}")["data"]["result"]
        return [sample["value"][1] for sample in result] == ["1"]

    wait_until(up, what="the first scrape")
    groups = answer(project, "prometheus", "/api/v1/rules")["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert rules
    wait_until(
        lambda: all(
            rule["health"] == "ok"
            for group in answer(project, "prometheus", "/api/v1/rules")["data"]["groups"]
            for rule in group["rules"]
        ),
        what="an evaluation of each rule",
    )
    found = answer(project, "prometheus", "/api/v1/alertmanagers")["data"]["activeAlertmanagers"]
    assert [each["url"] for each in found] == ["http://alertmanager:9093/api/v2/alerts"]
    config = answer(project, "prometheus", "/api/v1/status/config")["data"]["yaml"]
    assert "runbooks: https://docs.openguild.com" in config
    assert answer(project, "alertmanager", "/api/v2/status")["config"]["original"]


def test_the_database_comes_back_and_the_server_with_it(project: Project, chat: Chat) -> None:
    alice = chat.user()
    project("stop", "--timeout", "5", "postgres")
    wait_until(lambda: chat.http.get("/ready").status_code == 503, what="the server notices")
    assert chat.http.get("/live").status_code == 200
    project("start", "postgres")
    wait_until(lambda: chat.http.get("/ready").status_code == 200, what="the server is ready again")
    assert alice.get("/users/me").status_code == 200
    assert project.service("server").restarts == 0


def test_a_drain_by_the_operator_is_a_restart(project: Project, chat: Chat) -> None:
    alice = chat.user()
    channel = alice.channel(alice.guild())
    before = project.service("server").moment("StartedAt")
    with alice.stream(channel) as stream:
        assert json.loads(project.run_in("server", "openguild-server", "admin", "drain")) == {"draining": True}
        with pytest.raises(ConnectionClosed) as closed:
            stream.recv(timeout=GRACE_SECS)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1012
    wait_until(lambda: project.service("server").moment("StartedAt") > before, what="another start")
    wait_until(lambda: project.service("server").health == "healthy", what="health")
    assert alice.get("/users/me").status_code == 200


def test_stopping_drains_and_the_data_is_kept(project: Project, chat: Chat) -> None:
    alice = chat.user()
    channel = alice.channel(alice.guild())
    alice.say(channel, "kept")
    with alice.stream(channel) as stream:
        assert json.loads(stream.recv(timeout=10))["event"]["content"]["content"] == "kept"
        began = time.monotonic()
        project("stop", "server")
        assert time.monotonic() - began < GRACE_SECS - 5
        with pytest.raises(ConnectionClosed) as closed:
            stream.recv(timeout=10)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1012
    assert project.service("server").state["ExitCode"] == 0
    assert [message for message in project.messages("server") if message in {"drained", "stopped"}][-2:] == [
        "drained",
        "stopped",
    ]
    project.down()
    project.up("server")
    assert alice.get("/users/me").status_code == 200, "the signing key was kept"
    assert [line["content"] for line in alice.get(f"/channels/{channel}/messages").json()] == ["kept"]
