"""`openguild-server probe URL`: synthetic checks of a running server, one line per step (docs/operations.md).

Without an account it only reads. With `--username` and a password it also logs in, posts a message in its own guild and
receives it on a stream; the message stays, the session is ended. `--slo` compares the server's metrics with the playbook's
thresholds, within a window that begins before the other steps. `--prometheus FILE` writes the results for a textfile collector,
even after a failure.
"""

from __future__ import annotations

import http.client
import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from urllib.parse import SplitResult, urlsplit

import anyio

from openguild_proto.http.headers import SECURITY_HEADERS
from openguild_runtime.cli.probe_certificate import certificate_end, describe_end
from openguild_runtime.cli.probe_slo import Finding, Restarted, check_slo
from openguild_runtime.client import ApiError, Client, OutcomeUnknown, StreamEnded, TlsFailed
from openguild_runtime.observability.logs import redact
from openguild_runtime.server.failures import WrongUsage
from openguild_runtime.system.atomic_file import write_atomically

STEP_LIMIT_SECS = 5.0
MAX_BODY_BYTES = 16 * 1_048_576
MAX_WINDOW_SECS = 86_400
MAX_CAUSE_CHARS = 200
GUILD_NAME = "synthetic checks"
# headers to which a proxy may add a line; any other repeated header was set by both server and proxy
MAY_REPEAT = frozenset({"set-cookie", "vary", "via", "link", "warning", "cache-control", "server-timing", "alt-svc"})
FAILURES = (OSError, http.client.HTTPException, ValueError, ApiError, OutcomeUnknown, StreamEnded, TimeoutError)


class Answer(NamedTuple):
    """The response to a step."""

    status: int
    headers: tuple[tuple[str, str], ...]  # names in lower case
    body: bytes


class Options(NamedTuple):
    """The arguments. `url` is the server's, `metrics_url` that of the metrics, by default `url`/metrics."""

    url: str
    only: str | None = None
    username: str | None = None
    password_file: str | None = None
    slo: bool = False
    window: float = 0.0  # seconds; 0 means since the start of the server
    metrics_url: str | None = None
    prometheus: str | None = None


Get = Callable[[str], Answer]
Step = Callable[[], str | None]  # returns the problem, or None


class Report(Protocol):
    """Reports the result of a step. `note` is a remark on a passed step."""

    def __call__(self, step: str, secs: float, problem: str | None, note: str = "") -> None: ...


def _live(get: Get) -> str | None:
    answer = get("/live")
    return None if answer.status == 200 else f"status {answer.status}"


def _health(get: Get) -> str | None:
    answer = get("/health")
    return None if (answer.status, answer.body) == (200, b"ok") else f"status {answer.status}"


def _ready(get: Get) -> str | None:
    answer = get("/ready")
    status = _json(answer).get("status")
    return None if answer.status == 200 else f"status {answer.status}, {status}"


def _version(get: Get) -> str | None:
    answer = get("/version")
    return None if answer.status == 200 and _json(answer).get("version") else f"status {answer.status}"


def _authentication(get: Get) -> str | None:
    answer = get("/users/me")
    if answer.status != 401 or _json(answer).get("error") != "unauthorized":
        return f"a request without a token was answered with {answer.status}"
    return None


def _headers(get: Get) -> str | None:
    answer = get("/no-such-route")
    headers = dict(answer.headers)
    problems = [
        f"missing {name}" if name not in headers else f"unexpected {name}"
        for name, value in SECURITY_HEADERS
        if headers.get(name) != value
    ]
    if not headers.get("x-request-id"):
        problems.append("missing x-request-id")
    counts = Counter(name for name, _ in answer.headers)
    problems += [f"{count} times {name}" for name, count in counts.items() if count > 1 and name not in MAY_REPEAT]
    return ", ".join(problems) or None


CHECKS: dict[str, Callable[[Get], str | None]] = {
    "live": _live,
    "health": _health,
    "ready": _ready,
    "version": _version,
    "authentication": _authentication,
    "headers": _headers,
}


class RoundTrip:
    """Logs in, posts a message and receives it, with one client."""

    def __init__(self, url: str, username: str, password: str) -> None:
        # retries end before the step's limit, so that a failure is reported with its cause
        self._client = Client(url, retry_secs=STEP_LIMIT_SECS / 2)
        self._username = username
        self._password = password

    async def run(self, report: Report) -> None:
        """Run the steps and report each; stop at the first problem."""
        async with self._client as client:
            channel = ""
            for name, step in (("login", self._login), ("channel", self._channel)):
                started, problem = time.monotonic(), None
                try:
                    with anyio.fail_after(STEP_LIMIT_SECS):
                        channel = await step() or channel
                except FAILURES as failure:
                    problem = _describe_failure(failure)
                report(name, time.monotonic() - started, problem)
                if problem is not None:
                    return
            await self._post_and_receive(channel, report)
            try:
                await client.logout()
            except FAILURES as failure:
                report("logout", 0.0, _describe_failure(failure))

    async def _login(self) -> None:
        await self._client.login(self._username, self._password, device_id="probe")

    async def _channel(self) -> str:
        """Return the ID of the probe guild's channel. Creates both if they are missing."""
        guilds = await self._client.request("GET", "/guilds")
        guild = next((line["guild_id"] for line in guilds if line["name"] == GUILD_NAME), None)
        if guild is None:
            guild = (await self._client.request("POST", "/guilds", {"name": GUILD_NAME}))["guild_id"]
        channels = await self._client.request("GET", f"/guilds/{guild}/channels")
        if not channels:
            channels = [await self._client.request("POST", f"/guilds/{guild}/channels", {"name": "round trip"})]
        return str(channels[0]["channel_id"])

    async def _post_and_receive(self, channel: str, report: Report) -> None:
        started = time.monotonic()
        try:
            with anyio.fail_after(STEP_LIMIT_SECS):
                newest = await self._client.request("GET", f"/channels/{channel}/events?limit=1")
                since = newest[-1]["sequence"] if newest else 0
                started = time.monotonic()
                posted = await self._client.post(channel, f"probe {time.time():.3f}")
                report("post", time.monotonic() - started, None)
                started = time.monotonic()
                async with self._client.subscribe(channel, since) as events:
                    while (await anext(events)).sequence < posted.sequence:
                        continue
                report("stream", time.monotonic() - started, None)
        except FAILURES as failure:
            report("round trip", time.monotonic() - started, _describe_failure(failure))


def probe(options: Options) -> int:
    """Run the probe and return 0 if every step passed, else 1. Raises WrongUsage for invalid arguments."""
    parts = _parts(options.url)
    steps = (*CHECKS, "certificate") if parts.scheme == "https" else tuple(CHECKS)
    if options.only is not None and options.only not in steps:
        raise WrongUsage(f"probe: --only: expected one of {', '.join(steps)}")
    if not 0 <= options.window <= MAX_WINDOW_SECS:
        raise WrongUsage(f"probe: --window: expected 0 to {MAX_WINDOW_SECS} seconds")
    results: list[tuple[str, float, str | None]] = []
    ends_at: float | None = None

    def report(step: str, secs: float, problem: str | None, note: str = "") -> None:
        results.append((step, secs, problem))
        mark, text = ("ok  ", note) if problem is None else ("FAIL", problem)
        sys.stdout.write(f"{mark} {step} {secs * 1000:.0f} ms{text and ': ' + text}\n")

    def run_check(name: str, step: Step) -> None:
        started = time.monotonic()
        try:
            problem = step()
        except FAILURES as failure:
            problem = _describe_failure(failure)
        report(name, time.monotonic() - started, problem)

    def get(path: str) -> Answer:
        return _get(parts.scheme, parts.netloc, parts.path.rstrip("/") + path)

    begun = _read_metrics(options) if options.slo and options.window > 0 else None
    try:
        for name, check in CHECKS.items():
            if options.only in {None, name}:
                run_check(name, lambda check=check: check(get))  # type: ignore[misc]  # mypy does not see the default's type
        if parts.scheme == "https" and options.only in {None, "certificate"}:
            ends_at = _certificate(parts, report)
        if options.username is not None:
            _round_trip(options, options.username, report)
        if options.slo:
            _objectives(options, begun, run_check, report)
    finally:
        if options.prometheus is not None:
            _write_for_prometheus(Path(options.prometheus), results, ends_at)
    return int(any(problem is not None for _, _, problem in results))


def _parts(url: str) -> SplitResult:
    """Parse the server's URL. Raises WrongUsage."""
    try:
        parts = urlsplit(url)
        if parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0:
            return parts
    except ValueError:  # an unclosed bracket or an invalid port
        pass
    raise WrongUsage("probe: expected a URL such as http://127.0.0.1:8080")


def _certificate(parts: SplitResult, report: Report) -> float | None:
    """Report when the certificate expires, and return that in UTC seconds, or None if it could not be read."""
    started = time.monotonic()
    try:
        ends_at = certificate_end(str(parts.hostname), parts.port, STEP_LIMIT_SECS)
    except OSError as failure:
        report("certificate", time.monotonic() - started, _describe_failure(failure))
        return None
    problem, note = describe_end(ends_at)
    report("certificate", time.monotonic() - started, problem, note)
    return ends_at


def _round_trip(options: Options, username: str, report: Report) -> None:
    try:
        password = _password(options)
        round_trip = RoundTrip(options.url, username, password)
    except OSError as failure:
        report("login", 0.0, f"--password-file: {failure.strerror}")
    except ValueError as fault:
        report("login", 0.0, str(fault))
    else:
        anyio.run(round_trip.run, report)


def _objectives(
    options: Options, begun: Reading | None, run_check: Callable[[str, Step], None], report: Report
) -> None:
    """Fetch the metrics in the step `metrics`, then report each objective as a step. `begun` is the first reading of the window."""
    found: dict[str, Finding] = {}

    def metrics() -> str | None:
        before = begun.text if begun is not None else None
        if begun is not None:
            if begun.problem is not None:
                return begun.problem
            time.sleep(max(0.0, begun.at + options.window - time.monotonic()))
        after = _read_metrics(options)
        if after.problem is not None:
            return after.problem
        try:
            found.update(check_slo(after.text, before))
        except Restarted as failure:
            return str(failure)
        except (ValueError, LookupError) as failure:
            return f"not a server's metrics: {str(failure)[:100]}"
        return None

    run_check("metrics", metrics)
    for name, finding in found.items():
        report(f"slo {name}", 0.0, finding.problem, finding.note)


class Reading(NamedTuple):
    """The metrics at a time (monotonic seconds), or why there are none."""

    at: float
    text: str = ""
    problem: str | None = None


def _read_metrics(options: Options) -> Reading:
    now = time.monotonic()
    try:
        parts = urlsplit(options.metrics_url or options.url.rstrip("/") + "/metrics")
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            return Reading(now, problem="expected a URL such as http://127.0.0.1:9100/metrics")
        answer = _get(parts.scheme, parts.netloc, parts.path + (f"?{parts.query}" if parts.query else ""))
        if answer.status != 200:
            hint = "" if options.metrics_url else "; set --metrics-url"
            return Reading(now, problem=f"status {answer.status}{hint}")
        return Reading(now, answer.body.decode())
    except FAILURES as failure:
        return Reading(now, problem=_describe_failure(failure))


def _password(options: Options) -> str:
    """Read the password from the file or standard input; an argument would be visible in process lists. Raises OSError."""
    if options.password_file is None:
        return sys.stdin.readline().rstrip("\n")
    return Path(options.password_file).read_text().strip()


def _write_for_prometheus(path: Path, results: list[tuple[str, float, str | None]], ends_at: float | None) -> None:
    """Replace a textfile collector's file atomically."""
    lines = ["# TYPE openguild_probe_success gauge"]
    lines += [f'openguild_probe_success{{step="{name}"}} {int(problem is None)}' for name, _, problem in results]
    lines += ["# TYPE openguild_probe_duration_seconds gauge"]
    lines += [f'openguild_probe_duration_seconds{{step="{name}"}} {secs:.6f}' for name, secs, _ in results]
    lines += ["# TYPE openguild_probe_timestamp_seconds gauge", f"openguild_probe_timestamp_seconds {time.time():.0f}"]
    if ends_at is not None:
        name = "openguild_probe_certificate_expiry_timestamp_seconds"
        lines += [f"# TYPE {name} gauge", f"{name} {ends_at:.0f}"]
    write_atomically(path, "\n".join(lines) + "\n", mode=0o644)


def _describe_failure(failure: BaseException) -> str:
    if isinstance(failure, ApiError):
        return f"{failure.status} {failure.code}"
    if isinstance(failure, OutcomeUnknown | TlsFailed):  # its text is the reason
        return redact(" ".join(str(failure).split()))[:MAX_CAUSE_CHARS] or type(failure).__name__
    return getattr(failure, "strerror", None) or type(failure).__name__


def _get(scheme: str, netloc: str, path: str) -> Answer:
    make = http.client.HTTPSConnection if scheme == "https" else http.client.HTTPConnection
    connection = make(netloc.rpartition("@")[2], timeout=STEP_LIMIT_SECS)
    try:
        connection.request("GET", path, headers={"accept": "application/json"})
        response = connection.getresponse()
        headers = tuple((name.lower(), value) for name, value in response.getheaders())
        return Answer(response.status, headers, response.read(MAX_BODY_BYTES))
    finally:
        connection.close()


def _json(answer: Answer) -> dict[str, Any]:
    value = json.loads(answer.body)
    return value if isinstance(value, dict) else {}
