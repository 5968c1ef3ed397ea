"""Fixtures of the incidents: a Prometheus with the rules of deploy/, a server, and the page."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.conftest import run_apart
from tests.support.chat import User
from tests.support.databases import Databases
from tests.support.oncall import OnCall
from tests.support.prometheus import URL, Prometheus
from tests.support.runbooks import Runbook, runbooks
from tests.support.server import ServerProcess
from tests.support.waiting import free_port, wait_until

WINDOW_SECS = 20  # replaces five minutes and other ranges
POST_SECS = 0.1
ROOMY = {"WEBSOCKET__WRITE_TIMEOUT_SECS": 120, "WEBSOCKET__MAX_CONNECTIONS_PER_USER": 100}
TIMES = pytest.StashKey[list[str]]()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the time from the fault to the alert, and from the diagnosis to the culprit."""
    for line in config.stash.get(TIMES, []):
        terminalreporter.write_line(line)


def pod(directory: Path, *flags: str, descriptors: int | None = None, **settings: object) -> ServerProcess:
    """Return a server with an admin socket, as in the image."""
    port = free_port()
    more = {"ADMIN_SOCKET": directory / f"admin-{port}.sock"} | settings
    return ServerProcess(directory, *flags, port=port, descriptors=descriptors, **more)


class Incident:
    """One incident: the alert fires and links to the section, its command is run, its repairs are made, and the alert ends."""

    def __init__(self, book: Runbook, prometheus: Prometheus, oncall: OnCall, times: list[str]) -> None:
        self._book = book
        self._prometheus = prometheus
        self._oncall = oncall
        self._times = times
        self._began = time.monotonic()

    def fires(self, alert: str, **labels: str) -> dict[str, Any]:
        """Wait for the alert and check that it links to this section. Return its labels and annotations."""

        def found() -> dict[str, Any] | None:
            fired = self._prometheus.alerts(alert)
            return next((each for each in fired if labels.items() <= each["labels"].items()), None)

        told = wait_until(found, secs=60, what=lambda: f"{alert}, but {self._prometheus.get('/api/v1/alerts')}")
        assert told["annotations"]["runbook_url"] == f"{URL}/runbooks.md#{self._book.anchor}"
        self._note(f"{alert} fires")
        return dict(told)

    def ask(self, minutes: int | None = None, **places: object) -> str:
        """Return the output of the section's command. With `minutes`, it reads only that much of the log, as `logs 5 | ...`."""
        command = self._book.ask if minutes is None else self._book.ask.replace("logs ", f"logs {minutes} ")
        said = self._oncall.run(command, **places)
        self._note("asked")
        return said

    def mend(self, number: int = 0, **places: object) -> str:
        """Run a repair command of the section."""
        said = self._oncall.run(self._book.mends[number], **places)
        assert self._oncall.status == 0, said
        return said

    def try_row(self, beginning: str, **places: object) -> str:
        """Run the command in a table or a sentence of the section that begins with this text."""
        (command,) = {found for found in self._book.inline if found.startswith(beginning)}
        return self._oncall.run(command, **places)

    def run(self, command: str) -> str:
        """Run any other command of the page."""
        return self._oncall.run(command)

    def ends(self, *alerts: str) -> None:
        """Wait until these alerts have ended."""
        for alert in alerts:
            wait_until(lambda alert=alert: not self._prometheus.alert(alert), secs=90, what=f"the end of {alert}")
        self._note("over")

    def _note(self, what: str) -> None:
        self._times.append(f"{self._book.anchor}: {what} after {time.monotonic() - self._began:.1f} s")


@pytest.fixture(scope="session")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    found = Prometheus(tmp_path_factory.mktemp("prometheus"), window_secs=WINDOW_SECS)
    wait_until(lambda: found.get("/api/v1/rules"), what="Prometheus")
    yield found
    found.stop()


@pytest.fixture
def walk(prometheus: Prometheus, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Incident]]:
    """Yield `walk(section, pod, ...)`, which begins an incident; the servers become the pods of the namespace prod."""
    times = request.config.stash.setdefault(TIMES, [])
    watched: set[str] = set()
    shells: list[OnCall] = []

    def begin(section: str, *servers: ServerProcess, oncall: OnCall | None = None) -> Incident:
        addresses = {f"127.0.0.1:{server.port}" for server in servers} - watched
        prometheus.watch(*addresses)
        watched.update(addresses)
        prometheus.wait_scrapes()
        if oncall is None and not shells:
            shells.append(OnCall(tmp_path, {f"openguild-server-{place}": each for place, each in enumerate(servers)}))
        return Incident(runbooks()[section], prometheus, oncall or shells[0], times)

    yield begin
    prometheus.forget(*watched)


def run_statements(database_url: str, *statements: str) -> None:
    """Run statements as another user of the database."""

    async def execute(url: str) -> None:
        connection = await asyncpg.connect(url)
        for statement in statements:
            await connection.execute(statement)
        await connection.close()

    run_apart(execute, database_url)


class Probed(BaseHTTPRequestHandler):
    """Serves the textfile collector's file to Prometheus."""

    def do_GET(self) -> None:
        body = Path(self.server.file).read_bytes()  # type: ignore[attr-defined]  # set by `serving`
        self.send_response(200)
        self.send_header("content-type", "text/plain; version=0.0.4")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Log nothing."""


@contextmanager
def serving(file: Path, context: ssl.SSLContext | None = None) -> Iterator[int]:
    """Serve the file; yield the port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Probed) as server:
        server.file = str(file)  # type: ignore[attr-defined]  # for `Probed`, as above
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


class Site:
    """A server in use."""

    def __init__(self, server: ServerProcess, database_url: str) -> None:
        self.server = server
        self.database_url = database_url
        self.alice: User = server.chat().user()
        self.guild = self.alice.guild()
        self.channel = self.alice.channel(self.guild)

    @property
    def instance(self) -> str:
        """Its `instance` label."""
        return f"127.0.0.1:{self.server.port}"

    def post(self, text: str = "x") -> int:
        """Post, and return the status."""
        return self.alice.post(f"/channels/{self.channel}/messages", {"content": text}).status_code


@contextmanager
def repeated(action: Callable[[], object]) -> Iterator[None]:
    """Repeat an action several times a second until the block ends."""
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(POST_SECS):
            action()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@pytest.fixture(scope="module")
def site(databases: Databases, module_directory: Path) -> Iterator[Site]:
    with databases.database() as url:
        server = pod(module_directory, DATABASE_URL=url, **ROOMY)
        with server.start():
            yield Site(server, url)
            assert server.stop() == 0, server.tail()
