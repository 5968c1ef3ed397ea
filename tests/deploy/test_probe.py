"""`openguild-server probe` against servers that lie: wrong headers, invalid or incomplete metrics, missing files."""

from __future__ import annotations

import re
import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from openguild_proto.errors import ErrorCode
from openguild_proto.http.headers import SECURITY_HEADERS
from openguild_proto.replica.outputs import Counters
from openguild_runtime.cli.probe import Options, probe
from openguild_runtime.cli.probe_slo import SERVER_FAULTS, Restarted, check_slo
from openguild_runtime.embedded import EmbeddedNats
from openguild_runtime.observability.metric_labels import REASONS
from openguild_runtime.observability.metrics import Depths, Metrics
from openguild_runtime.server.failures import WrongUsage
from tests.support.server import ROOT, ServerProcess
from tests.support.waiting import free_port

Page = tuple[int, str]


def exposition() -> str:
    """Return the metrics of a server after one request."""
    metrics = Metrics("1", native_ring=False)
    metrics.db_ready(True)
    metrics.bus_connected(True)
    metrics.http_request("/ready", 200, 0.001)
    return metrics.render().decode()


@pytest.fixture
def pages() -> Iterator[tuple[str, dict[str, Page], dict[str, str]]]:
    """Yield a server's address, its pages by path, and the headers that all of them have."""
    found: dict[str, Page] = {
        "/live": (200, ""), "/health": (200, "ok"), "/ready": (200, '{"status": "ready"}'), "/version": (200, '{"version": "1"}'),
        "/users/me": (401, '{"error": "unauthorized"}'), "/metrics": (200, exposition()),
    }  # fmt: skip
    shown = {**{name.title(): value for name, value in SECURITY_HEADERS}, "X-Request-Id": "1"}

    class Pages(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = found.get(self.path, (404, "{}"))
            self.send_response(status)
            for name, value in shown.items():
                for each in value.split("|"):
                    self.send_header(name, each)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *arguments: object) -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Pages) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", found, shown
        server.shutdown()
        thread.join()


def failed(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """Return the failed steps with their messages."""
    lines = re.findall(r"^FAIL (.+?) \d+ ms: (.+)$", capsys.readouterr().out, re.MULTILINE)
    return dict(lines)


Site = tuple[str, dict[str, Page], dict[str, str]]


def test_a_good_server_passes(pages: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert probe(Options(pages[0], slo=True)) == 0
    assert failed(capsys) == {}


@pytest.mark.parametrize("name", [name for name, _ in SECURITY_HEADERS])
def test_a_header_with_another_value_is_told(name: str, pages: Site, capsys: pytest.CaptureFixture[str]) -> None:
    pages[2][name.title()] = "unsafe"
    assert probe(Options(pages[0], only="headers")) == 1
    assert failed(capsys) == {"headers": f"unexpected {name}"}
    del pages[2][name.title()]
    assert probe(Options(pages[0], only="headers")) == 1
    assert failed(capsys) == {"headers": f"missing {name}"}


@pytest.mark.parametrize("name", ["x-frame-options", "x-request-id", "access-control-allow-origin"])
def test_a_header_that_a_proxy_doubles_is_told(name: str, pages: Site, capsys: pytest.CaptureFixture[str]) -> None:
    value = pages[2].get(name.title(), "*")
    pages[2][name.title()] = f"{value}|{value}"
    assert probe(Options(pages[0], only="headers")) == 1
    assert failed(capsys) == {"headers": f"2 times {name}"}
    pages[2][name.title()] = value
    pages[2]["Vary"] = "origin|accept-encoding"
    assert probe(Options(pages[0], only="headers")) == 0


def test_what_failed_before_the_window_does_not_count(pages: Site, capsys: pytest.CaptureFixture[str]) -> None:
    metrics = Metrics("1", native_ring=False)
    metrics.db_ready(True)
    metrics.bus_connected(True)
    metrics.http_request("/ready", 500, 9.0)
    pages[1]["/metrics"] = (200, metrics.render().decode())
    assert probe(Options(pages[0], only="ready", slo=True, window=0.0)) == 1
    assert failed(capsys).keys() == {"slo latency", "slo errors"}

    def later() -> None:
        metrics.http_request("/ready", 200, 0.001)
        pages[1]["/metrics"] = (200, metrics.render().decode())

    timer = threading.Timer(0.5, later)
    timer.start()
    assert probe(Options(pages[0], only="ready", slo=True, window=1.0)) == 0
    timer.join()
    assert probe(Options(pages[0], only="ready", slo=True, window=0.1)) == 1
    assert failed(capsys) == {"slo latency": "no request was counted"}


def test_a_window_is_of_one_process() -> None:
    """The gauges are those of both ends."""
    before = Metrics("1", native_ring=False)
    before.depths(Depths([("c", 197)], 0))
    before.db_ready(False)
    before.bus_connected(True)
    text = before.render().decode()
    before.depths(Depths([], 0))
    before.db_ready(True)
    before.http_request("/ready", 200, 0.001)
    found = check_slo(before.render().decode(), text)
    assert {name for name, finding in found.items() if finding.problem} == {"queue depth", "database"}
    other = re.sub(r"^process_start_time_seconds .*$", "process_start_time_seconds 1.0", text, flags=re.MULTILINE)
    with pytest.raises(Restarted, match="another instance answered"):
        check_slo(text, other)


def test_a_window_has_a_bound(pages: Site) -> None:
    for window in (-1.0, 86_401.0, float("nan")):
        with pytest.raises(WrongUsage, match="--window"):
            probe(Options(pages[0], slo=True, window=window))


WRONG_METRICS: dict[str, tuple[Page, str]] = {
    "away": ((404, '{"error": "not_found"}'), "status 404; set --metrics-url"),
    "health": ((200, "ok"), "not a server's metrics: "),
    "page": ((200, "<html><body class=x>no</body></html>\n"), "not a server's metrics: "),
    "empty": ((200, ""), "not a server's metrics: openguild_build_info is missing"),
    "other": ((200, "up 1\n"), "not a server's metrics: openguild_build_info is missing"),
}


@pytest.mark.parametrize("case", WRONG_METRICS)
def test_metrics_that_are_none_fail_and_the_file_is_written(
    case: str, pages: Site, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pages[1]["/metrics"], said = WRONG_METRICS[case]
    assert probe(Options(pages[0], only="ready", slo=True, prometheus=str(tmp_path / "out"))) == 1
    problems = failed(capsys)
    assert problems.keys() == {"metrics"}
    assert problems["metrics"].startswith(said)
    assert 'openguild_probe_success{step="metrics"} 0' in (tmp_path / "out").read_text()


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}/metrics", "nonsense", "ftp://x/", "http://[::1/"])
def test_a_metrics_url_that_nobody_answers(url: str, pages: Site, tmp_path: Path) -> None:
    options = Options(
        pages[0], only="ready", slo=True, metrics_url=url.format(port=free_port()), prometheus=str(tmp_path / "out")
    )
    assert probe(options) == 1
    written = (tmp_path / "out").read_text()
    assert 'openguild_probe_success{step="metrics"} 0' in written
    assert 'openguild_probe_success{step="ready"} 1' in written


def test_a_round_trip_that_reaches_nobody_says_why(
    pages: Site, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "password").write_text("pa55word")
    for url, cause in (
        (f"http://127.0.0.1:{free_port()}", r"ConnectionRefusedError: .*Connect call failed.*"),
        (
            f"http://probe:pa55word@127.0.0.1:{free_port()}",
            r"a server's address must not contain a user: expected http://host:port.*",
        ),
        (f"{pages[0]}/prefix", r"not a server's address: .*: expected http://host:port"),
    ):
        assert probe(Options(url, only="live", username="x", password_file=str(tmp_path / "password"))) == 1
        said = failed(capsys)["login"]
        assert re.fullmatch(cause, said), said
        assert "pa55word" not in said


def test_a_certificate_that_nobody_signed_is_the_cause_and_may_be_trusted(pages: Site, tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl on this machine")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
         "-keyout", key, "-out", certificate, "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    with ThreadingHTTPServer(("127.0.0.1", 0), Ok) as server:
        # the handshake runs in the handler: one that a client gave up would block the next client
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            ask = partial(
                ServerProcess(tmp_path).run_command,
                "probe",
                "--only",
                "live",
                f"https://localhost:{server.server_port}",
            )
            refused = ask("--username", "x", stdin="secret")
            trusted = ask(SSL_CERT_FILE=str(certificate))
            ends = ask("--only", "certificate", "--prometheus", "file", SSL_CERT_FILE=str(certificate))
        finally:
            server.shutdown()
            thread.join()
    assert refused.returncode == 1
    assert re.search(
        r"^FAIL login \d+ ms: the certificate of localhost:\d+ is not trusted: .*self.signed",
        refused.stdout,
        re.MULTILINE,
    )
    assert (trusted.returncode, trusted.stdout[:9]) == (0, "ok   live")
    assert ends.returncode == 1, "a day is too short for a renewal"
    assert re.fullmatch(r"FAIL certificate \d+ ms: ends in 1\.0 days\n", ends.stdout)
    told = re.search(
        r"^openguild_probe_certificate_expiry_timestamp_seconds (\d+)$", (tmp_path / "file").read_text(), re.MULTILINE
    )
    assert told is not None
    assert 0 < int(told[1]) - time.time() <= 86_400


class Ok(BaseHTTPRequestHandler):
    """Answers every GET with 200."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        """Log nothing."""


def test_a_password_file_that_is_away_is_a_failed_step(
    pages: Site, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    options = Options(
        pages[0], only="ready", username="x", password_file=str(tmp_path / "none"), prometheus=str(tmp_path / "out")
    )
    assert probe(options) == 1
    assert failed(capsys) == {"login": "--password-file: No such file or directory"}
    assert 'openguild_probe_success{step="login"} 0' in (tmp_path / "out").read_text()


def without(text: str, name: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.startswith(name)) + "\n"


@pytest.mark.parametrize(
    ("objective", "series"),
    [
        ("latency", "openguild_http_request_duration_seconds_bucket"),
        ("errors", "openguild_http_requests_total"),
        ("dropped", "openguild_messaging_events_total"),
        ("dropped", 'openguild_messaging_events_total{outcome="dropped"}'),
        ("queue depth", "openguild_websocket_queue_depth_max"),
        ("database", "openguild_db_ready"),
    ],
)
def test_an_absent_series_is_no_success(objective: str, series: str) -> None:
    found = check_slo(without(exposition(), series))
    problems = {name: finding.problem for name, finding in found.items() if finding.problem}
    assert problems == {objective: f"{series} is missing"}


def test_a_server_that_serves_alone_shows_no_nats_and_passes(tmp_path: Path, database_url: str) -> None:
    with ServerProcess(tmp_path, DATABASE_URL=database_url).start() as alone:
        assert (
            "openguild_nats_connected" not in httpx.get(alone.base_url + "/metrics", trust_env=False, verify=False).text
        )
        done = alone.run_command("probe", "--slo", "--window", "0", alone.base_url)
        assert (done.returncode, done.stdout.count("ok   slo")) == (0, 6), done.stdout
        assert "ok   slo nats 0 ms: not configured\n" in done.stdout


def test_each_objective_is_missed_by_what_misses_it() -> None:
    def slow(metrics: Metrics) -> None:
        metrics.http_request("/ready", 200, 3.0)

    def lag(metrics: Metrics) -> None:
        counters = Counters()
        counters.lagged, counters.missed = 1, 3
        metrics.replica_totals(counters.snapshot())

    def fault(status: int) -> Callable[[Metrics], None]:
        return lambda metrics: metrics.http_request("/ready", status, 0.001)

    cases: list[tuple[Callable[[Metrics], None], set[str]]] = [
        (slow, {"latency"}), (lag, {"dropped"}),
        (lambda metrics: metrics.depths(Depths([("c", 197)], 0)), {"queue depth"}),
        (lambda metrics: metrics.db_ready(False), {"database"}), (lambda metrics: metrics.bus_connected(False), {"nats"}),
        *((fault(status), {"errors"} if str(status) in SERVER_FAULTS else set()) for status in range(500, 506)),
    ]  # fmt: skip
    for spoil, missed in cases:
        metrics = Metrics("1", native_ring=False)
        metrics.db_ready(True)
        metrics.bus_connected(True)
        metrics.http_request("/ready", 200, 0.001)
        spoil(metrics)
        found = check_slo(metrics.render().decode())
        assert {name for name, finding in found.items() if finding.problem} == missed


def test_a_server_whose_metrics_have_their_own_listener(
    new_database: Callable[[], str], nats_server: EmbeddedNats, tmp_path: Path
) -> None:
    port = free_port()
    with ServerProcess(
        tmp_path, DATABASE_URL=new_database(), NATS__URL=nats_server.url, METRICS__BIND_ADDR=f"127.0.0.1:{port}"
    ).start() as server:
        here = server.run_command("probe", "--slo", "--window", "0", server.base_url)
        assert (here.returncode, here.stderr) == (1, "")
        assert "FAIL metrics" in here.stdout
        there = server.run_command(
            "probe", "--slo", "--window", "0", "--metrics-url", f"http://127.0.0.1:{port}/metrics", server.base_url
        )
        assert (there.returncode, there.stdout.count("ok   slo")) == (0, 6), there.stdout


def test_every_reason_is_there_before_it_happens() -> None:
    """Series start at 0, so that `increase()` sees the first event; the list must match the sources."""
    text = Metrics("1", native_ring=False).render().decode()
    shown = set(re.findall(r'openguild_messaging_rejections_total{reason="(\w+)"} 0', text))
    assert shown == REASONS
    for outcome in ("delivered", "no_subscribers", "dropped"):
        assert f'openguild_messaging_events_total{{outcome="{outcome}"}} 0' in text
    assert {code.spec.reason for code in ErrorCode} - {None} <= shown
    names = {f"{kind}_{end}" for kind in ("guild_name", "channel_name") for end in ("empty", "length")}
    assert names <= shown
    said = re.compile(
        r'reason: str = "(\w+)"|reason = "(\w+)"|_content_problem\([^)]*, "(\w+)"\)|rejected\("(\w+)"\)'
        r'|PeerViolated\([^)]*, "(\w+)"|WsRule\([^)]*, "(\w+)"\)'
    )
    for package in ("openguild_proto", "openguild_runtime"):
        for path in (ROOT / package).rglob("*.py"):
            if "client" not in path.parts:
                found = {name for groups in said.findall(path.read_text()) for name in groups if name}
                assert found <= shown, (path, found - shown)
