"""Faults of NATS: retries and what the operator sees. With real nats-servers and with scripted peers."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from structlog.testing import capture_logs

from openguild_proto.bus.topics import Topic
from openguild_runtime.bus.nats import NatsBus
from openguild_runtime.observability.metric_labels import NATS_FAULTS
from openguild_runtime.observability.metrics import Metrics
from tests.support.bus_handler import BusRecorder
from tests.support.fake_nats import INFO, FakeNats, faking
from tests.support.nats_config import ConfiguredNats, configured_nats, permissions
from tests.support.waiting import eventually, free_port

pytestmark = pytest.mark.anyio

PING_SECS = 0.05


@pytest.fixture
def nats(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[ConfiguredNats]:
    with configured_nats(tmp_path, getattr(request, "param", "")) as server:
        yield server


class Recorder(BusRecorder):
    """A bus, its metrics, and what it has delivered."""

    def __init__(self, bus: NatsBus, metrics: Metrics) -> None:
        super().__init__(probe=b"{}")
        self.bus = bus
        self._metrics = metrics

    @property
    def heard(self) -> set[str]:
        topics = {topic.value for topic, payloads in self.broadcasts.items() if payloads}
        return topics | ({"channel"} if self.events else set())

    def forget(self) -> None:
        self.events.clear()
        for payloads in self.broadcasts.values():
            payloads.clear()

    def sample(self, name: str, **labels: str) -> float:
        return self._metrics.registry.get_sample_value(name, labels) or 0.0

    def has_problem(self, part: str) -> bool:
        return self.bus.problem is not None and part in self.bus.problem


@asynccontextmanager
async def listening(*urls: str, connected: bool = True, **options: Any) -> AsyncIterator[list[Recorder]]:
    async with anyio.create_task_group() as tasks:
        recorders = []
        for url in urls:
            metrics = Metrics("0", native_ring=False)
            recorders.append(Recorder(NatsBus(url, "One", metrics, tasks, ping_secs=PING_SECS, **options), metrics))
        for recorder in recorders:
            await recorder.bus.start(recorder)
            recorder.bus.join("here")
        if connected:
            await eventually(lambda: all(recorder.bus.connected for recorder in recorders))
        yield recorders
        for recorder in recorders:
            await recorder.bus.aclose()


ENDS: dict[str, tuple[FakeNats, str]] = {
    "closes at once": (FakeNats(greeting=b"", pongs=0), "cannot be reached"),
    "greets and closes": (FakeNats(pongs=0), "without a reason"),
    "closes after CONNECT": (FakeNats(pongs=1), "without a reason"),
    "closes when it was made": (FakeNats(), "without a reason"),
    "another protocol": (FakeNats(greeting=b"SSH-2.0-OpenSSH_9.6\r\n", pongs=0), "protocol"),
    "a long line": (FakeNats(greeting=b"x" * 100_000, pongs=0, stays=True), "protocol"),
    "no JSON": (FakeNats(greeting=b"INFO {]\r\n", pongs=0), "protocol"),
    "other JSON": (FakeNats(greeting=b"INFO [1]\r\n", pongs=0), "protocol"),
    "an odd limit": (FakeNats(greeting=b'INFO {"max_payload":"x"}\r\n', pongs=0), "protocol"),
    "a broken message": (FakeNats(last=b"INFO {]\r\n", stays=True), "protocol"),
    "an unknown word": (FakeNats(last=b"HELLO\r\n", stays=True), "protocol"),
    "an error without text": (FakeNats(last=b"-ERR  \r\n\r\n", stays=True), "protocol"),
    "stale": (FakeNats(last=b"-ERR 'Stale Connection'\r\n"), "does not answer"),
    "slow": (FakeNats(last=b"-ERR 'Slow Consumer'\r\n"), "too slow"),
    "late": (FakeNats(pongs=0, last=b"-ERR 'Authentication Timeout'\r\n"), "waited too long"),
    "expired": (FakeNats(last=b"-ERR 'User Authentication Expired'\r\n"), "expired"),
    "revoked": (FakeNats(last=b"-ERR 'User Authentication Revoked'\r\n"), "revoked"),
    "too many": (FakeNats(pongs=0, last=b"-ERR 'maximum connections exceeded'\r\n"), "no more connections"),
    "too large": (FakeNats(last=b"-ERR 'Maximum Payload Violation'\r\n"), "as large"),
    "an error of its own": (FakeNats(last=b"-ERR 'Out of Cheese'\r\n"), "with an error"),
    "going": (FakeNats(last=INFO.replace(b'"headers"', b'"ldm":true,"headers"')), "shutting down"),
}


async def test_each_disconnect_cause_is_named_and_retries_back_off() -> None:
    """All in parallel: each server gets a few attempts, and each cause is logged in one line."""
    fakes = [fake for fake, _ in ENDS.values()]
    with capture_logs() as records:
        async with faking(*fakes), listening(*(fake.url for fake in fakes), connected=False) as recorders:
            await eventually(lambda: all(fake.connections >= 3 for fake in fakes), secs=20)
            begun, before = anyio.current_time(), [fake.connections for fake in fakes]
            await eventually(
                lambda: all(fake.connections >= number + 2 for fake, number in zip(fakes, before, strict=True))
            )
            secs = anyio.current_time() - begun
            for (name, (fake, cause)), recorder, connections in zip(ENDS.items(), recorders, before, strict=True):
                assert fake.connections - connections <= 4 * secs, name
                await eventually(lambda recorder=recorder, cause=cause: recorder.has_problem(cause))
                assert sum(recorder.sample("openguild_nats_faults_total", kind=kind) for kind in NATS_FAULTS) >= 3, name
    assert not [record for record in records if record["log_level"] in ("error", "critical")]
    for name, (fake, cause) in ENDS.items():
        lines = [r for r in records if r["log_level"] == "warning" and fake.url.endswith(r.get("server", "-"))]
        assert 1 <= len(lines) <= 3, name
        assert any(cause in line["event"] for line in lines), name


async def test_a_silent_server_is_reported() -> None:
    mute, deaf = FakeNats(greeting=b"", pongs=0, stays=True), FakeNats(stays=True)
    async with faking(mute, deaf), listening(mute.url, deaf.url, connected=False) as (one, two):
        await eventually(lambda: one.has_problem("does not answer") and two.has_problem("does not answer"))
        assert two.bus.connected, "it answered, and is not given up yet"


@pytest.mark.parametrize("nats", ["max_subscriptions: 6"], indirect=True)
async def test_a_subscription_limit_keeps_the_connection(nats: ConfiguredNats) -> None:
    async with listening(nats.url) as (recorder,):
        for number in range(8):
            recorder.bus.subscribe([f"c{number}"])
        await eventually(lambda: recorder.has_problem("no more subscriptions"))
        before = recorder.answers
        await eventually(lambda: recorder.answers > before + 10)
        assert recorder.has_problem("no more subscriptions"), "it is asked now and then only"
        assert (recorder.reconnects, recorder.bus.connected) == (0, True)
        for number in range(1, 8):
            recorder.bus.unsubscribe([f"c{number}"])
        await eventually(lambda: recorder.bus.problem is None)


@pytest.mark.parametrize("nats", [permissions()], indirect=True)
@pytest.mark.parametrize("kind", ["control", "limits", "hints", "channel"])
@pytest.mark.parametrize("action", ["publish", "subscribe"])
async def test_a_denied_subject_is_reported_from_the_start(nats: ConfiguredNats, action: str, kind: str) -> None:
    """Also if a reload denies it later, and another one permits it again."""
    denied = permissions(**{action: f'"openguild.One.*.{kind}{".>" if kind == "channel" else ""}"'})
    await anyio.to_thread.run_sync(nats.reload, denied)
    named = f"not permit {action} on openguild.One.*.{kind}"
    async with listening(nats.url_of("og:pw"), nats.url_of("og:pw")) as (here, there):
        for recorder in (here, there):
            assert recorder.has_problem(named), "when it connects"
            assert recorder.bus.limits_delivered == (kind != "limits")
            assert recorder.sample("openguild_nats_denied_subjects") == 1
        here.bus.subscribe(["c1"])
        await eventually(lambda: says_everything(there, here) >= {"control", "limits", "hints", "channel"} - {kind})
        assert here.heard.isdisjoint({kind})
        await anyio.to_thread.run_sync(nats.reload, permissions())
        await eventually(lambda: here.bus.problem is None and there.bus.problem is None)
        assert here.bus.limits_delivered
        await eventually(lambda: says_everything(there, here) == {"control", "limits", "hints", "channel"})
        await anyio.to_thread.run_sync(nats.reload, denied)
        await eventually(lambda: here.has_problem(named) and there.has_problem(named))
        assert here.sample("openguild_nats_reconnects_total") == 0


def says_everything(speaker: Recorder, hearer: Recorder) -> set[str]:
    speaker.bus.publish_channel("c1", b"event")
    for topic in Topic:
        speaker.bus.broadcast(topic, topic.value.encode())
    return hearer.heard


@pytest.mark.parametrize("nats", [permissions()], indirect=True)
async def test_a_changed_password_is_reported_and_retried(nats: ConfiguredNats) -> None:
    with capture_logs() as records:
        async with listening(nats.url_of("og:pw")) as (recorder,):
            await anyio.to_thread.run_sync(nats.reload, permissions(password="other"))
            await eventually(
                lambda: recorder.has_problem("refuses the user") and recorder.bus.reconnects.failed_attempts >= 3
            )
            await anyio.to_thread.run_sync(nats.reload, permissions())
            await eventually(lambda: recorder.bus.connected, secs=20)
            assert recorder.bus.problem is None
    lines = [record["event"] for record in records if record["log_level"] == "warning"]
    assert len(lines) == 1, "once a minute"
    assert lines[0].startswith("the connection to NATS has ended. NATS refuses the user, password")


@pytest.mark.parametrize("nats", ["max_payload: 500"], indirect=True)
async def test_too_large_messages_are_logged_once(nats: ConfiguredNats) -> None:
    with capture_logs() as records:
        async with listening(nats.url) as (recorder,):
            for _ in range(20):
                recorder.bus.publish_channel("c1", bytes(600))
            await eventually(lambda: recorder.has_problem("as large"))
            await eventually(lambda: recorder.bus.problem is None)
            assert (recorder.reconnects, recorder.sample("openguild_nats_publishes_dropped_total")) == (0, 20)
    assert len([record for record in records if "max_payload" in record["event"]]) == 1


async def test_a_server_in_lame_duck_mode_is_replaced(tmp_path: Path) -> None:
    with configured_nats(tmp_path) as first, configured_nats(tmp_path) as second:
        async with listening(f"{first.url},{second.url}") as (recorder,):
            connection = recorder.bus._connection
            assert connection is not None
            mine = first if first.url == connection.server.url else second
            mine.process.send_signal(signal.SIGUSR2)
            await eventually(
                lambda: recorder.reconnects == 1 and recorder.bus.connected, secs=9
            )  # it ends connections after 10


async def test_a_bad_server_in_the_list_is_skipped(nats: ConfiguredNats) -> None:
    garbage, mute = FakeNats(greeting=b"hello\r\n", pongs=0), FakeNats(greeting=b"", pongs=0, stays=True)
    async with faking(garbage, mute):
        bad = [garbage.url, mute.url, f"nats://127.0.0.1:{free_port()}", "nats://no-such-host.invalid"]
        async with listening(*(f"{url},{nats.url}" for url in bad)) as recorders:
            assert all(recorder.bus.problem is None for recorder in recorders)


PASSWORDS = [
    ("p%40ss%2Fw%3Aord%25%2C", "p@ss/w:ord%,"),
    ("p,w", "p,w"),
    ("100%", "100%"),
    ("%C3%BC", "ü"),
    ("p@w", "p@w"),
]


@pytest.mark.parametrize(("written", "meant"), PASSWORDS)
async def test_passwords_are_percent_decoded(tmp_path: Path, written: str, meant: str) -> None:
    with configured_nats(tmp_path, f'authorization {{ user: "us@er:1", password: "{meant}" }}') as server:
        async with listening(server.url_of(f"us%40er%3A1:{written}")):
            pass


async def test_a_token_is_percent_decoded(tmp_path: Path) -> None:
    with configured_nats(tmp_path, 'authorization { token: "to/k@n" }') as server:
        async with listening(server.url_of("to%2Fk%40n")):
            pass


@pytest.mark.parametrize("nats", [permissions()], indirect=True)
async def test_each_server_of_a_list_has_its_own_login(nats: ConfiguredNats, tmp_path: Path) -> None:
    with configured_nats(tmp_path, 'authorization { user: "x", password: "%" }') as other:
        url = f"{nats.url_of('og:pw')},{other.url_of('x:%25')}"
        async with listening(url) as (recorder,):
            for server in (nats, other):
                await anyio.to_thread.run_sync(server.kill)
                await eventually(lambda: recorder.bus.connected, secs=20)
                await anyio.to_thread.run_sync(server.start)


async def test_tls_never_falls_back_to_plain_text() -> None:
    fake = FakeNats()
    async with faking(fake):
        url = fake.url.replace("nats://", "tls://user:hunter2@")
        async with listening(url, connected=False) as (recorder,):
            await eventually(lambda: recorder.has_problem("offers no TLS"))
    assert b"hunter2" not in fake.heard


@pytest.mark.parametrize("text", ["", "garbage", "-----BEGIN NATS USER JWT-----\na.b.c\n"])
async def test_an_invalid_credentials_file_does_not_block(nats: ConfiguredNats, tmp_path: Path, text: str) -> None:
    file = tmp_path / "server.creds"
    file.write_text(text)
    async with listening(nats.url, connected=False, credentials_file=str(file)) as (recorder,):
        await eventually(
            lambda: recorder.has_problem("nats.credentials_file") and recorder.bus.reconnects.failed_attempts >= 1
        )
