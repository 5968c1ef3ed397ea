"""A peer that misbehaves in every way, against real servers: refused with a reason, bounded, counted (PROTOCOL 16.2 to 16.4)."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import trustme

from openguild_proto.canonical.keys import EventSigner, encode_unpadded
from openguild_proto.canonical.signing import SigningKey
from openguild_proto.federation.signatures import content_digest
from openguild_proto.http.message import Headers
from openguild_runtime.embedded import EmbeddedNats
from tests.support.busy import fair_secs
from tests.support.hostile import GIGABYTES, PAGES, HostilePeer, misbehave, signed
from tests.support.raw import RawClient
from tests.support.server import ServerProcess
from tests.support.waiting import wait_until

PING, TRANSACTIONS = "/federation/v1/ping", "/federation/transactions"
CHANGED = "/federation/v1/keys/changed"
REQUESTS = 300  # of one server in a window


class Stage(NamedTuple):
    """Two replicas of b.example, an honest peer, and a peer whose key the first one uses."""

    one: ServerProcess
    two: ServerProcess
    peer: HostilePeer
    victim: HostilePeer
    authority: trustme.CA
    clients: tuple[httpx.Client, httpx.Client]  # one per replica

    def ask(
        self, headers: Headers, method: str = "GET", target: str = PING, body: bytes = b"", *, replica: int = 1
    ) -> tuple[int, str]:
        """Return the status, and the signature fault or the error code."""
        answer = self.clients[replica - 1].request(method, target, headers=list(headers), content=body or None)
        if answer.status_code < 400:
            return answer.status_code, "ok"
        told = answer.json()
        if told["error"] == "signature_invalid":
            return answer.status_code, str(told["details"][0]["message"])
        return answer.status_code, str(told["error"])

    def claimed_by(self, peer: HostilePeer, **changes: Any) -> tuple[int, str]:
        return self.ask(signed(peer.signer, "GET", PING, **changes))

    def counted(self, reason: str) -> float:
        return sum(
            server.metric("openguild_messaging_rejections_total", reason=reason) for server in (self.one, self.two)
        )


@pytest.fixture(scope="module")
def stage(module_directory: Path, module_database: str, nats_server: EmbeddedNats) -> Iterator[Stage]:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(module_directory / "ca.pem")
    with ExitStack() as running:
        one, two = (
            running.enter_context(
                ServerProcess(
                    module_directory, DATABASE_URL=module_database, NATS__URL=nats_server.url, SERVER_NAME="b.example",
                    FEDERATION__SIGNING_KEY=encode_unpadded(b"b" * 32), FEDERATION__MODE="open",
                    FEDERATION__ALLOW_PRIVATE_ADDRESSES="true", FEDERATION__CA_FILE=module_directory / "ca.pem",
                    FEDERATION__MAX_REQUESTS_PER_SERVER_PER_WINDOW=REQUESTS, FEDERATION__WINDOW_SECS=600,
                    FEDERATION__MAX_DISCOVERIES_PER_WINDOW=200, HTTP__BODY_TIMEOUT_SECS=1,
                    ADMIN_SOCKET=module_directory / f"admin-{number}.sock",
                )
            )
            for number in (1, 2)
        )  # fmt: skip
        peers = [HostilePeer(authority) for _ in range(2)]
        peer, victim = peers
        for key_id, more in (("revoked", {"revoked": True}), ("expired", {"days": -1.0})):
            signer = EventSigner(peer.name, key_id, SigningKey(key_id.encode().ljust(32)))
            peer.keys.append(peer.published(key_id, signer, **more))  # type: ignore[arg-type]  # one of two members
        first, second = (
            running.enter_context(httpx.Client(base_url=server.base_url, trust_env=False, timeout=15, verify=False))
            for server in (one, two)
        )
        found = Stage(one, two, peer, victim, authority, (first, second))
        assert [found.claimed_by(each) for each in peers] == [(200, "ok")] * 2
        yield found
        for each in peers:
            each.close()


# --- requests ----------------------------------------------------------------------------------------


def signer_named(stage: Stage, name: str | None = None, key_id: str = "1", seed: bytes | None = None) -> EventSigner:
    key = SigningKey(seed) if seed is not None else SigningKey(stage.peer.name.encode().ljust(32)[:32])
    return EventSigner(name or stage.peer.name, key_id, key)


def edited(name: str, old: str, new: str) -> Callable[[Stage], Headers]:
    """Return a function for the headers of a valid request with one of them altered."""

    def edit(stage: Stage) -> Headers:
        good = signed(stage.peer.signer, "GET", PING)
        found = tuple((key, value.replace(old, new) if key == name else value) for key, value in good)
        assert found != good
        return found

    return edit


def without(name: str) -> Callable[[Stage], Headers]:
    return lambda stage: tuple(field for field in signed(stage.peer.signer, "GET", PING) if field[0] != name)


def as_is(**changes: Any) -> Callable[[Stage], Headers]:
    def sign(stage: Stage) -> Headers:
        made: dict[str, Any] = {"method": "GET", "target": PING} | changes
        return signed(stage.peer.signer, made.pop("method"), made.pop("target"), **made)

    return sign


INPUT = "signature-input"
KEYID = "localhost:"
CASES: dict[str, tuple[Callable[[Stage], Headers], str]] = {
    "no signature": (lambda stage: (), "missing"),
    "no signature input": (without(INPUT), "missing"),
    "no signature value": (without("signature"), "missing"),
    "no digest": (without("content-digest"), "missing"),
    "another tag": (edited(INPUT, "openguild-federation", "other"), "missing"),
    "another label": (edited("signature", "og=", "go="), "missing"),
    "garbage": (edited(INPUT, "og=(", "og=(("), "malformed"),
    "a parameter twice": (edited(INPUT, ";created=", ";created=1;created="), "malformed"),
    "a signature of 63 bytes": (edited("signature", "og=:", "og=:AAAA"), "malformed"),
    "another algorithm": (edited(INPUT, ";tag=", ';alg="hmac-sha256";tag='), "malformed"),
    "an unknown component": (edited(INPUT, '"@query"', '"@query" "@other"'), "malformed"),
    "a short nonce": (as_is(nonce="short"), "malformed"),
    "a long nonce": (as_is(nonce="n" * 65), "malformed"),
    "a name in capitals": (edited(INPUT, KEYID, "LOCALHOST:"), "malformed"),
    "a name that is a number": (edited(INPUT, KEYID, "2130706433:"), "malformed"),
    "no method": (edited(INPUT, '"@method" ', ""), "component_missing"),
    "no authority": (edited(INPUT, '"@authority" ', ""), "component_missing"),
    "no path": (edited(INPUT, '"@path" ', ""), "component_missing"),
    "no query": (edited(INPUT, '"@query" ', ""), "component_missing"),
    "the digest is not covered": (edited(INPUT, ' "content-digest"', ""), "component_missing"),
    "another nonce": (edited(INPUT, ';nonce="', ';nonce="x'), "bad_signature"),
    "another digest": (edited("content-digest", content_digest(b""), content_digest(b"x")), "bad_signature"),
    "another method": (as_is(method="POST"), "bad_signature"),
    "another path": (as_is(target="/federation/v1/pong"), "bad_signature"),
    "another query": (as_is(target=f"{PING}?x=1"), "bad_signature"),
    "for another server": (as_is(authority="c.example"), "bad_signature"),
    "another body": (as_is(body=b"x"), "wrong_digest"),
    "expired": (as_is(ahead=-310), "expired"),
    "from the future": (as_is(ahead=310), "from_future"),
    "ended before": (edited(INPUT, ";tag=", ";expires=1;tag="), "expired"),
    "under the name of another": (lambda stage: signed(signer_named(stage, stage.victim.name), "GET", PING), "bad_signature"),
    "under the name of this server": (lambda stage: signed(signer_named(stage, "b.example"), "GET", PING), "unknown_server"),
    "an unknown key": (lambda stage: signed(signer_named(stage, key_id="none"), "GET", PING), "unknown_key"),
    "a known id with another key": (lambda stage: signed(signer_named(stage, seed=b"x" * 32), "GET", PING), "bad_signature"),
    "a revoked key": (
        lambda stage: signed(signer_named(stage, key_id="revoked", seed=b"revoked".ljust(32)), "GET", PING), "revoked_key",
    ),
    "an expired key": (
        lambda stage: signed(signer_named(stage, key_id="expired", seed=b"expired".ljust(32)), "GET", PING), "expired_key",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_requests_that_are_refused(stage: Stage, case: str) -> None:
    make, reason = CASES[case]
    before = stage.one.metric("openguild_messaging_rejections_total", reason=f"signature_{reason}")
    assert stage.ask(make(stage)) == (401, reason)
    assert stage.one.metric("openguild_messaging_rejections_total", reason=f"signature_{reason}") == before + 1


def test_a_request_is_good_once_on_all_replicas(stage: Stage) -> None:
    headers = signed(stage.peer.signer, "GET", PING)
    assert stage.ask(headers) == (200, "ok")
    assert [stage.ask(headers, replica=replica) for replica in (1, 2)] == [(401, "replayed")] * 2


def test_of_equal_nonces_at_once_one_is_good(stage: Stage) -> None:
    headers = signed(stage.peer.signer, "GET", PING)
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda number: stage.ask(headers, replica=1 + number % 2), range(8)))
    assert sorted(answers) == [(200, "ok"), *[(401, "replayed")] * 7]


def test_a_head_that_is_too_large(stage: Stage) -> None:
    headers = (("signature-input", "og=(" + '"a" ' * 3_000 + ")"),)
    assert stage.clients[0].get(PING, headers=list(headers)).status_code == 431


# --- bodies ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "body", "status"),
    [
        (f"Content-Length: {GIGABYTES}", b"", 413),
        ("Transfer-Encoding: chunked", b"280000000\r\n", 400),
        ("Content-Length: 1000", b"{", 408),
        ("Transfer-Encoding: chunked", b"10\r\n{", 408),
        ("Content-Length: 10\r\nTransfer-Encoding: chunked", b"", 400),
    ],
    ids=["10 GB declared", "a chunk of 10 GB", "slow", "slow in chunks", "two lengths"],
)
def test_bodies(stage: Stage, head: str, body: bytes, status: int) -> None:
    fields = "".join(f"{name}: {value}\r\n" for name, value in signed(stage.peer.signer, "POST", TRANSACTIONS))
    started = fair_secs()
    with RawClient(stage.one.port) as client:
        client.send(f"POST {TRANSACTIONS} HTTP/1.1\r\nHost: b.example\r\n{fields}{head}\r\n\r\n".encode() + body)
        assert client.answer().status == status
    assert fair_secs() - started < 5


def test_chunks_without_an_end(stage: Stage) -> None:
    """Endless chunks are read up to the route's limit."""
    with RawClient(stage.one.port) as client:
        client.send(f"POST {TRANSACTIONS} HTTP/1.1\r\nHost: b.example\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        for _ in range(33):  # 33 chunks of 65,536 bytes: more than 2 MiB
            client.send(b"10000\r\n" + b"x" * 65_536 + b"\r\n")
        assert client.answer().status == 413


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"{", 400), (b'{"origin":1}', 400), (b"[" * 10_000, 400), (json.dumps({"origin": "b.example"}).encode(), 202)],
)
def test_signed_bodies_that_say_nothing(stage: Stage, body: bytes, status: int) -> None:
    headers = (*signed(stage.peer.signer, "POST", TRANSACTIONS, body), ("content-type", "application/json"))
    assert stage.ask(headers, "POST", TRANSACTIONS, body)[0] == status


def test_events_in_the_name_of_another_server(stage: Stage) -> None:
    pdu = {
        "event_id": "$x", "origin_server": stage.victim.name, "room_id": "r", "event_type": "message", "sender": "u",
        "origin_ts": 1, "content": {},
    }  # fmt: skip
    for origin in (stage.victim.name, stage.peer.name):
        body = json.dumps({"origin": origin, "pdus": [pdu]}).encode()
        headers = [*signed(stage.peer.signer, "POST", TRANSACTIONS, body), ("content-type", "application/json")]
        answer = stage.clients[0].post(TRANSACTIONS, headers=headers, content=body)
        (rejected,) = answer.json()["rejected"]
        assert (answer.status_code, "untrusted" in rejected["reason"]) == (400, origin == stage.victim.name)


# --- keys --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", PAGES)
def test_documents_that_are_not_believed(stage: Stage, case: str) -> None:
    peer = HostilePeer(stage.authority)
    misbehave(peer, case)
    started = fair_secs()
    assert stage.claimed_by(peer) == (401, "unknown_server")
    assert stage.claimed_by(peer) == (401, "unknown_server")
    assert fair_secs() - started < 5
    assert len(peer.asked) <= 5, "at most three redirects, and once a minute"
    assert peer.sent < 8 * 1024 * 1024
    peer.close()


def test_slow_documents_hold_nothing_up(stage: Stage) -> None:
    """Slow documents get 5 seconds each; meanwhile other requests are served."""
    slow = [HostilePeer(stage.authority) for _ in range(3)]
    slow[0].pages["/.well-known/openguild"] = slow[0].slow(b"HTTP/1.1 200 X\r\ncontent-length: 4000\r\n\r\n")
    slow[1].pages["/.well-known/openguild"] = slow[1].slow(b"")
    slow[2].pages["/federation/v1/keys"] = slow[2].slow(b"HTTP/1.1 200 X\r\ncontent-length: 4000\r\n\r\n")
    with ThreadPoolExecutor(3) as threads:
        started = fair_secs()
        waiting = [threads.submit(stage.claimed_by, peer) for peer in slow]
        assert [stage.claimed_by(stage.victim) for _ in range(5)] == [(200, "ok")] * 5
        assert fair_secs() - started < 3
        assert [answer.result() for answer in waiting] == [(401, "unknown_server")] * 3
        assert fair_secs() - started < 10
    for peer in slow:
        peer.close()


def test_keys_that_change_each_second(stage: Stage) -> None:
    peer = HostilePeer(stage.authority)
    outcomes = []
    for number in range(6):
        peer.signer = EventSigner(peer.name, f"k{number}", SigningKey(bytes([number]) * 32))
        peer.keys = [peer.published(f"k{number}", peer.signer)]
        outcomes.append(stage.claimed_by(peer))
    assert outcomes == [(200, "ok"), *[(401, "unknown_key")] * 5]
    assert len(peer.asked) == 2
    peer.close()


@pytest.mark.parametrize("certified", ["elsewhere.example", None], ids=["of another name", "of nobody"])
def test_certificates_that_do_not_count(stage: Stage, certified: str | None) -> None:
    authority = stage.authority if certified is not None else trustme.CA()
    peer = HostilePeer(authority, certified or "localhost")
    assert stage.claimed_by(peer) == (401, "unknown_server")
    assert peer.asked == []
    peer.close()


# --- addresses ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def strict(module_directory: Path) -> Iterator[ServerProcess]:
    """Run a server that does not connect to addresses of its own network."""
    with ServerProcess(
        module_directory, STORAGE="memory", SERVER_NAME="b.example", FEDERATION__MODE="open",
        FEDERATION__SIGNING_KEY=encode_unpadded(b"b" * 32), TRUSTED_PROXIES="127.0.0.0/8",
    ) as running:  # fmt: skip
        yield running


ADDRESSES = (
    "localhost", "127.0.0.1", "[::1]", "10.0.0.1", "192.168.0.1", "172.16.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0",
    "[64:ff9b::7f00:1]", "[fe80::1]", "[fc00::1]", "[2002:7f00:1::]", "224.0.0.1",
)  # fmt: skip


@pytest.mark.parametrize("host", ADDRESSES)
def test_names_that_lead_inside(strict: ServerProcess, host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        signer = EventSigner(f"{host}:{port}", "1", SigningKey(b"s" * 32))
        started = fair_secs()
        answer = httpx.get(
            strict.base_url + PING, headers=list(signed(signer, "GET", PING)), trust_env=False, verify=False
        )
        assert (answer.status_code, answer.json()["details"][0]["message"]) == (401, "unknown_server")
        assert fair_secs() - started < 2
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()


# --- floods ------------------------------------------------------------------------------------------


def test_a_flood_meets_the_budget_of_its_server_on_all_replicas(stage: Stage) -> None:
    peer = HostilePeer(stage.authority)
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda number: stage.claimed_by(peer), range(REQUESTS + 20)))
    assert set(answers) == {(200, "ok"), (429, "server_rate_limit")}
    assert answers.count((200, "ok")) <= REQUESTS
    assert stage.counted("server_rate_limit") >= 20
    there: list[tuple[int, str]] = []
    wait_until(lambda: there.append(stage.ask(signed(peer.signer, "GET", PING), replica=2)) or there[-1][0] == 429)
    assert there[-1] == (429, "server_rate_limit")
    assert len(there) <= REQUESTS, "the first replica has told it, four times a second"
    assert stage.claimed_by(stage.victim) == (200, "ok"), "others are served"
    peer.close()


def test_a_flood_of_names_meets_the_limit_of_its_address(strict: ServerProcess) -> None:
    """One address gets at most a quarter of all discoveries."""
    with httpx.Client(base_url=strict.base_url, trust_env=False, verify=False) as client:

        def claim(number: int, address: str) -> int:
            headers = signed(EventSigner(f"localhost:{number}", "1", SigningKey(b"s" * 32)), "GET", PING)
            return client.get(PING, headers=[*headers, ("x-forwarded-for", address)]).status_code

        statuses = [claim(number, "192.0.2.7") for number in range(1, 41)]
        assert statuses == [401] * 30 + [429] * 10
        assert claim(100, "192.0.2.8") == 401
