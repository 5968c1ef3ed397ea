"""NATS, descriptors, a clock, a certificate, and a bad release."""

from __future__ import annotations

import json
import re
import shutil
import ssl
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from openguild_runtime.embedded import EmbeddedNats
from tests.incidents.conftest import Incident, pod, repeated, run_statements, serving
from tests.support.oncall import OnCall
from tests.support.prometheus import Prometheus
from tests.support.raw import RawClient
from tests.support.server import ServerProcess
from tests.support.waiting import wait_until

WRONG_CLOCK = """
import pathlib, time
clock, right = pathlib.Path('{clock}'), time.time
time.time = lambda: right() + float(clock.read_text() or 0)
from openguild_runtime.cli.main import main
raise SystemExit(main([]))
"""
BAD_RELEASE = """
import os
import openguild_runtime.server.app as app
leaked = [os.open(os.devnull, os.O_RDONLY) for _ in range(300)]
good = app.dispatch
def dispatch(ctx, request):
    if request.path == "/guilds":
        raise KeyError("a bug of this release")
    return (yield from good(ctx, request))
app.dispatch = dispatch
from openguild_runtime.cli.main import main
raise SystemExit(main([]))
"""


def test_nats_is_down(database_url: str, tmp_path: Path, walk: Callable[..., Incident]) -> None:
    nats = EmbeddedNats(tmp_path / "nats")
    nats.start()
    try:
        with pod(tmp_path, DATABASE_URL=database_url, NATS__URL=nats.url).start() as server:
            incident = walk("nats-away", server)
            nats.kill()
            incident.fires("OpenGuildNatsAway")
            said = incident.ask()
            assert "degraded\n" in said
            assert "nats: error" in said
            nats.restart()
            incident.ends("OpenGuildNatsAway")
            assert "ready\n" in incident.ask()
    finally:
        nats.stop()


def test_descriptors_run_out(database_url: str, tmp_path: Path, walk: Callable[..., Incident]) -> None:
    server = pod(tmp_path, DATABASE_URL=database_url, descriptors=128)
    with server.start(), ExitStack() as clients:
        incident = walk("descriptors", server)
        assert server.process is not None
        subprocess.run(["prlimit", f"--pid={server.process.pid}", "--nofile=60:128"], check=True)
        for _ in range(60):
            clients.enter_context(RawClient(server.port))
        with repeated(lambda: clients.enter_context(RawClient(server.port))):
            incident.fires("OpenGuildDescriptors")
            said = incident.ask()
            assert "process_max_fds 60.0" in said
            assert '"reason":"too many open files","limit":60' in said
            incident.mend(pid=server.process.pid, limit=128)
            assert "process_max_fds 128.0" in incident.ask()
            wait_until(lambda: "descriptors: error" not in incident.run("ready"), secs=40)
        incident.ends("OpenGuildDescriptors")


def test_a_clock_is_wrong(database_url: str, tmp_path: Path, walk: Callable[..., Incident]) -> None:
    clock = tmp_path / "clock"
    clock.write_text("0")
    server = pod(tmp_path, DATABASE_URL=database_url)
    server.program = ("-c", WRONG_CLOCK.format(clock=clock))
    with server.start():
        incident = walk("clocks", server)
        alice = server.chat().user()
        clock.write_text("30")
        told = incident.fires("OpenGuildClockDiffers")
        assert told["labels"]["instance"] == f"127.0.0.1:{server.port}"
        difference = re.search(r"openguild_clock_difference_seconds (\S+)", incident.ask())
        assert difference is not None
        assert 29 < float(difference[1]) < 31, "ahead"
        assert alice.get("/users/me").status_code == 200
        clock.write_text("0")  # as NTP does
        incident.ends("OpenGuildClockDiffers")
        assert "agrees with the database's again" in incident.run("logs | jq 'select(.target == \"openguild.clock\")'")


def issue(directory: Path, days: int) -> tuple[Path, Path]:
    """Create a certificate for localhost."""
    key, certificate = directory / "key.pem", directory / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", str(days),
         "-keyout", key, "-out", certificate, "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"],
        check=True, capture_output=True,
    )  # fmt: skip
    return certificate, key


def test_a_certificate_ends(
    prometheus: Prometheus, tmp_path: Path, walk: Callable[..., Incident], monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl on this machine")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*issue(tmp_path, days=1))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
    results = tmp_path / "probe.prom"
    with serving(results, context) as port, serving(results) as scraped:
        oncall = OnCall(tmp_path, {}, public=f"https://localhost:{port}")
        run_probe = f"openguild-server probe --only certificate https://api.openguild.com --prometheus {results}"
        oncall.run(run_probe)
        prometheus.watch(f"127.0.0.1:{scraped}")
        try:
            incident = walk("certificate", oncall=oncall)
            incident.fires("OpenGuildCertificateEnds")
            incident.fires("OpenGuildCertificateExpires")
            assert re.match(r"FAIL certificate \d+ ms: ends in 1\.0 days", incident.ask())
            context.load_cert_chain(*issue(tmp_path, days=90))
            assert re.match(r"ok   certificate \d+ ms: ends in 90\.0 days", incident.ask())
            oncall.run(run_probe)
            incident.ends("OpenGuildCertificateEnds", "OpenGuildCertificateExpires")
        finally:
            prometheus.forget(f"127.0.0.1:{scraped}")


def test_a_bad_release_is_rolled_back(database_url: str, tmp_path: Path, walk: Callable[..., Incident]) -> None:
    """The release has also migrated the schema, with which the earlier release works."""
    server = pod(tmp_path, DATABASE_URL=database_url)
    server.program = ("-c", BAD_RELEASE)

    def undo() -> None:
        assert server.stop() == 0
        server.program = ServerProcess.program
        server.start()

    with server.start():
        migrated = ("ALTER TABLE users ADD COLUMN later text", "UPDATE alembic_version SET version_num = '0099'")
        run_statements(database_url, *migrated)
        oncall = OnCall(tmp_path, {"openguild-server-0": server}, public=server.base_url)
        oncall.rollouts["undo"] = undo
        incident, leak = walk("errors", server, oncall=oncall), walk("descriptors", oncall=oncall)
        statuses: list[int] = []
        with repeated(lambda: statuses.append(server.status("/guilds"))):
            told = incident.fires("OpenGuildErrorBudgetBurnsFast")
            assert told["labels"]["severity"] == "page"
            incident.fires("OpenGuildErrorBudgetBurns")
            leak.fires("OpenGuildDescriptorsLeak")
            measured = dict(re.findall(r"(?m)^(\w+) (\S+)$", leak.ask()))
            assert float(measured["process_open_fds"]) > 300 > 10 * float(measured["openguild_connections"])
            said = json.loads(incident.ask())
            assert said["errors"] > 0
            assert said["newest"]["exception"] == "KeyError: 'a bug of this release'"
            assert "successfully rolled out" in incident.mend()
            incident.ends("OpenGuildErrorBudgetBurnsFast", "OpenGuildErrorBudgetBurns")
            leak.ends("OpenGuildDescriptorsLeak")
        probed = incident.run("openguild-server probe https://api.openguild.com")
        assert "FAIL" not in probed
        assert "ok   headers" in probed
        assert statuses[-1] == 401
