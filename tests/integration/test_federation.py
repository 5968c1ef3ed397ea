"""Two real servers, each with its own name, and a third whose requests the test makes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import httpx
import pytest
from prometheus_client import CollectorRegistry

from openguild_proto.canonical.keys import EventSigner, KeyRing, encode_unpadded
from openguild_proto.canonical.signing import SigningKey
from openguild_proto.effects.federation import AskPeer, PeerAnswer, PeerUnavailable
from openguild_proto.federation.policy import FederationPolicy, Mode
from openguild_proto.federation.signatures import sign_request
from openguild_proto.operations.context import Service, Settings
from openguild_proto.sessions.tokens import TokenAuthority
from openguild_runtime.federation.connections import PeerConnections
from openguild_runtime.federation.dialer import Dialer, tls_context
from openguild_runtime.federation.peer_link import PeerLink
from openguild_runtime.observability.federation_metrics import FederationMetrics
from openguild_runtime.storage.memory import MemoryStorage
from openguild_runtime.system.clocks_and_entropy import ClocksAndEntropy
from tests.support.server import ServerProcess
from tests.support.waiting import free_port

PING = "/federation/v1/ping"
SEED = b"c" * 32
CAROL = EventSigner("c.example", "1", SigningKey(SEED))


@pytest.fixture(scope="module")
def server(module_directory: Path, module_database: str) -> Iterator[ServerProcess]:
    """Run b.example, which trusts c.example by its key."""
    with ServerProcess(
        module_directory, DATABASE_URL=module_database, SERVER_NAME="b.example",
        FEDERATION__SIGNING_KEY=encode_unpadded(b"b" * 32),
        FEDERATION__TRUSTED_SERVERS__0__SERVER_NAME="c.example", FEDERATION__TRUSTED_SERVERS__0__KEY_ID="1",
        FEDERATION__TRUSTED_SERVERS__0__VERIFYING_KEY=encode_unpadded(CAROL.public),
    ) as running:  # fmt: skip
        yield running


def asked(server: ServerProcess, *effects: AskPeer, allow_private: bool = True) -> list[PeerAnswer | str]:
    """Return the answers to c.example; for a missing answer the reason."""
    policy = FederationPolicy(
        mode=Mode.OPEN, server_name="c.example", addresses={"b.example": server.base_url},
        allow_private_addresses=allow_private,
    )  # fmt: skip
    service = Service.create(
        Settings(server_name="c.example", federation=policy), TokenAuthority(KeyRing(SigningKey(SEED))), signer=CAROL
    )
    outcomes: list[PeerAnswer | str] = []

    async def run() -> None:
        sources = ClocksAndEntropy()
        async with anyio.create_task_group() as tasks:
            link = PeerLink(
                service=service, storage=MemoryStorage(), sources=sources, tasks=tasks,
                connections=PeerConnections(
                    Dialer(lambda: tls_context(None), allow_private=allow_private), sources.monotonic,
                    service.response_times,
                ),
                metrics=FederationMetrics(CollectorRegistry()),
            )  # fmt: skip
            for effect in effects:
                try:
                    outcomes.append(await link.ask(effect))
                except PeerUnavailable as failure:
                    outcomes.append(failure.reason)
            await link.aclose()

    anyio.run(run)
    return outcomes


def ping(server: str = "b.example") -> AskPeer:
    return AskPeer(server=server, method="GET", target=PING)


def test_a_real_server_answers_a_signed_request(server: ServerProcess) -> None:
    connections = server.metric("openguild_connections_accepted_total")
    answers = asked(server, *[ping()] * 5)
    assert [answer.status if isinstance(answer, PeerAnswer) else answer for answer in answers] == [200] * 5
    assert server.metric("openguild_federation_requests_total", server="c.example") >= 5
    assert abs(server.metric("openguild_federation_clock_ahead_seconds", server="c.example")) < 5
    assert server.metric("openguild_connections_accepted_total") - connections <= 5, (
        "three for metrics, one each for keys and pings"
    )


def test_its_address_is_not_allowed_without_the_setting(server: ServerProcess) -> None:
    assert asked(server, ping(), allow_private=False) == ["address"]


def test_its_keys_are_published_and_may_be_kept(server: ServerProcess) -> None:
    with httpx.Client(base_url=server.base_url, trust_env=False) as client:
        found = client.get("/federation/v1/keys")
        assert found.headers["cache-control"] == "public, max-age=300"
        document = found.json()
        assert document["server"] == "b.example"
        assert [key["key_id"] for key in document["keys"]] == list(document["signatures"]) == ["1"]
        assert client.get("/.well-known/openguild").json() == {"base_url": "https://b.example", "versions": ["v1"]}


def by_hand(server: ServerProcess, signer: EventSigner, **changed: Any) -> httpx.Response:
    now = int(ClocksAndEntropy().wall())
    values = SimpleNamespace(
        **({"created": now, "nonce": f"by hand {signer.server_name}", "authority": "b.example"} | changed)
    )
    headers, _ = sign_request(
        "GET", PING, values.authority, b"", signer=signer, created=values.created, nonce=values.nonce
    )
    with httpx.Client(base_url=server.base_url, trust_env=False) as client:
        return client.get(PING, headers=dict(headers))


def test_faults_are_told_and_counted(server: ServerProcess) -> None:
    def refused(reason: str) -> float:
        return server.metric("openguild_messaging_rejections_total", reason=reason)

    before = {reason: refused(f"signature_{reason}") for reason in ("replayed", "missing", "bad_signature")}
    assert by_hand(server, CAROL, nonce="used more than once").status_code == 200
    again = by_hand(server, CAROL, nonce="used more than once")
    assert (again.status_code, again.json()["error"]) == (401, "signature_invalid")
    assert again.json()["details"] == [{"field": "signature", "message": "replayed"}]
    assert "www-authenticate" not in again.headers
    assert by_hand(server, CAROL, authority="elsewhere.example").json()["details"][0]["message"] == "bad_signature"
    assert httpx.get(server.base_url + PING, trust_env=False).json()["details"][0]["message"] == "missing"
    assert {reason: refused(f"signature_{reason}") - count for reason, count in before.items()} == dict.fromkeys(
        before, 1.0
    )
    stranger = EventSigner("stranger.example", "1", SigningKey(b"s" * 32))
    assert by_hand(server, stranger).json()["error"] == "server_denied"


# --- two servers that find each other -----------------------------------------------------------------


@pytest.fixture(scope="module")
def pair(module_directory: Path, server: ServerProcess) -> Iterator[tuple[ServerProcess, ServerProcess]]:
    """Run d.example and e.example, open to every server, with each other's address and an admin socket each."""
    ports = free_port(), free_port()
    names = "d.example", "e.example"
    addresses = ",".join(f"{name}=http://127.0.0.1:{port}" for name, port in zip(names, ports, strict=True))
    with ExitStack() as running:
        started = [
            running.enter_context(
                ServerProcess(
                    module_directory, port=port, STORAGE="memory", SERVER_NAME=name, ADMIN_SOCKET=module_directory / f"{name}.sock",
                    FEDERATION__MODE="open", FEDERATION__SIGNING_KEY=encode_unpadded(name.encode().ljust(32)),
                    FEDERATION__ADDRESSES=addresses, FEDERATION__ALLOW_PRIVATE_ADDRESSES="true",
                )
            )
            for name, port in zip(names, ports, strict=True)
        ]  # fmt: skip
        yield started[0], started[1]


def admin(server: ServerProcess, *arguments: str) -> tuple[int, dict[str, Any]]:
    done = server.run_command("admin", "federation", *arguments)
    return done.returncode, json.loads(done.stdout)


def test_an_operator_sees_and_decides_of_other_servers(pair: tuple[ServerProcess, ServerProcess]) -> None:
    d, e = pair
    status, answer = admin(d, "retry", "e.example")
    assert (status, answer["status"], json.loads(answer["answer"])["server"]) == (0, 200, "e.example")
    (line,) = admin(e, "peers")[1]["peers"]
    assert (line["server"], line["standing"], line["base_url"]) == ("d.example", "allow", d.base_url)
    assert line["last_contact"] is not None
    assert [key["key_id"] for key in admin(e, "peers", "d.example")[1]["keys"]] == ["1"]

    status, line = admin(e, "deny", "d.example", "--reason", "spam since Monday")
    assert (status, line["standing"], line["reason"]) == (0, "deny", "spam since Monday")
    status, answer = admin(d, "retry", "e.example")
    assert (status, answer["status"]) == (0, 403)
    assert json.loads(answer["answer"])["message"].endswith(": spam since Monday")
    status, answer = admin(e, "retry", "d.example")
    assert (status, answer["error"]) == (1, "d.example: denied: spam since Monday")
    assert admin(e, "clear", "d.example")[1]["standing"] == "allow"
    assert admin(d, "retry", "e.example")[1]["status"] == 200

    guild = "3b7f3e93-7c9c-47f5-91d3-cbf09dc5a8f6"
    assert admin(e, "quarantine", "d.example", "--guild", guild)[1]["guilds"][0]["guild_id"] == guild
    assert admin(e, "quarantine", "d.example", "--guild", "general")[0] == 1
    assert admin(e, "deny", "D.example")[0] == 1
    assert admin(e, "guilds") == (0, {"guilds": []})
    audited = [
        record
        for record in e.records()
        if record.get("event") == "admin action" or record.get("message") == "admin action"
    ]
    assert len(audited) >= 4


def test_own_keys_are_shown_and_the_current_one_is_not_revoked(pair: tuple[ServerProcess, ServerProcess]) -> None:
    d, _ = pair
    status, answer = admin(d, "keys")
    assert (status, [key["key_id"] for key in answer["keys"]]) == (0, ["1"])
    assert admin(d, "keys", "--revoke", "1")[0] == 1
    assert admin(d, "keys", "--revoke", "unknown")[0] == 1
