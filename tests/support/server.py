"""Real server processes: configured, started, awaited, stopped by signal, with their output kept."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import httpx

from tests.support.chat import Chat
from tests.support.launcher import PYTHON_ENVIRONMENT, LaunchedProcess, launch, run_launched
from tests.support.terminal import Terminal
from tests.support.waiting import PATIENCE_SECS, free_port, wait_until

ROOT = Path(__file__).resolve().parents[2]
SIGNING_KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"  # the seed of PROTOCOL 6.5.1


class ServerProcess:
    """`settings`: environment variables without their prefix, such as DATABASE_URL or MESSAGING__REPLAY_WINDOW."""

    program: tuple[str, ...] = ("-m", "openguild_runtime.cli.entry_point")
    launched = False  # fork from tests.support.launcher if the program is the usual one, else start an interpreter

    def __init__(
        self, directory: Path, *flags: str, port: int | None = None, without: tuple[str, ...] = (),
        descriptors: int | None = None, **settings: object,
    ) -> None:  # fmt: skip
        self.port = port or free_port()
        self.base_url = f"http://127.0.0.1:{self.port}"
        self.log_path = directory / f"server-{self.port}-{time.monotonic_ns()}.log"
        self._directory = directory
        self._flags = flags
        self.settings = {
            "HOST": "127.0.0.1", "PORT": self.port, "LOG_FORMAT": "json", "SESSION__SIGNING_KEY": SIGNING_KEY,
            "MESSAGING__MAX_MESSAGES_PER_USER_PER_WINDOW": 1_000_000, "MESSAGING__MAX_MESSAGES_PER_IP_PER_WINDOW": 1_000_000,
            "SESSION__MAX_LOGINS_PER_ADDRESS_PER_WINDOW": 1_000_000, "SESSION__MAX_REFRESHES_PER_ADDRESS_PER_WINDOW": 1_000_000,
            "GUILDS__MAX_WRITES_PER_USER_PER_WINDOW": 1_000_000, "MESSAGING__MAX_QUERIES_PER_USER_PER_WINDOW": 1_000_000,
            "SEARCH__MAX_SEARCHES_PER_USER_PER_WINDOW": 1_000_000, "FEDERATION__MAX_OWNER_READS_PER_USER_PER_WINDOW": 1_000_000,
            "DRAIN__DELAY_SECS": 0, "DRAIN__WINDOW_SECS": 1, "METRICS__MAX_AGE_SECS": 0,
        } | settings  # fmt: skip
        if (
            "NATS__URL" in settings and "DATABASE_URL" in settings
        ):  # others share the NATS server, with their own databases
            self.settings.setdefault("SERVER_NAME", urlsplit(str(settings["DATABASE_URL"])).path.strip("/") + ".test")
        for key in without:
            del self.settings[key]
        self._descriptors = descriptors  # the limit of open files
        self.variables: dict[str, str] = {}  # environment variables besides the settings
        self._chats: list[Chat] = []
        self.process: subprocess.Popen[bytes] | LaunchedProcess | None = None

    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("OPENGUILD_SERVER__")}
        environment = kept | {f"OPENGUILD_SERVER__{key}": str(value) for key, value in self.settings.items()}
        return environment | PYTHON_ENVIRONMENT | self.variables

    def run_command(self, *arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        """Run `openguild-server <flags> <arguments>` with the same settings, to its end. `environment`: further variables."""
        fresh = not self.launched or "PYTHONPATH" in environment
        environment = self.environment() | environment
        if fresh:
            return subprocess.run(
                [sys.executable, "-m", "openguild_runtime.cli.entry_point", *self._flags, *arguments],
                cwd=self._directory, env=environment, input=stdin, capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip
        return run_launched((*self._flags, *arguments), directory=self._directory, environment=environment, stdin=stdin)

    def in_terminal(self, *arguments: str, **environment: str) -> Terminal:
        """Run `openguild-server <flags> <arguments>` in a pseudo terminal."""
        command = [sys.executable, "-m", "openguild_runtime.cli.entry_point", *self._flags, *arguments]
        return Terminal(command, directory=self._directory, environment=self.environment() | environment)

    def start_command(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a command like `run_command`, without waiting for it."""
        return subprocess.Popen(
            [sys.executable, "-m", "openguild_runtime.cli.entry_point", *self._flags, *arguments],
            cwd=self._directory, env=self.environment(), stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def start(self, *, ready: bool = True, stderr: int | None = None, closed: bool = False) -> ServerProcess:
        """Start the server. `stderr`: a descriptor for its log in place of `log_path`; `closed`: no descriptors 0 to 2, no log."""
        command = [sys.executable, *self.program, *self._flags]
        if self._descriptors is not None:
            command = ["bash", "-c", f'ulimit -n {self._descriptors}; exec "$@"', "bash", *command]
        if closed:
            command = ["bash", "-c", 'exec "$@" 0<&- 1>&- 2>&-', "bash", *command]
        launched = self.launched and self.program is ServerProcess.program and self._descriptors is None and not closed
        with self.log_path.open("ab") as log, Path(os.devnull).open("rb") as nothing:
            errors = log.fileno() if stderr is None else stderr
            if launched:
                self.process = launch(
                    self._flags, directory=self._directory, environment=self.environment(), stdin=nothing.fileno(),
                    stdout=log.fileno(), stderr=errors,
                )  # fmt: skip
            else:
                self.process = subprocess.Popen(
                    command, cwd=self._directory, env=self.environment(), stdin=nothing, stdout=log, stderr=errors
                )
        if ready:
            self.wait_ready()
        return self

    def wait_ready(self, secs: float = 60.0) -> None:
        wait_until(
            lambda: self.alive() and self.status("/ready") == 200, secs=secs, what=lambda: f"readiness: {self.tail()}"
        )

    def wait_answers(self, secs: float = 60.0) -> int:
        """Wait until the server answers, ready or not; return its port."""
        wait_until(
            lambda: self.alive() and self.status("/live") == 200, secs=secs, what=lambda: f"an answer: {self.tail()}"
        )
        return self.port

    def alive(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"the server ended with {self.process.returncode}: {self.tail()}"
        return True

    def status(self, path: str) -> int:
        """Return the status of GET `path`; 0 while the server does not answer."""
        try:
            return httpx.get(self.base_url + path, timeout=5.0, trust_env=False, verify=False).status_code
        except httpx.TransportError:
            return 0

    def get(self, path: str) -> Any:
        """Return the JSON body of GET `path`; `{}` while the server does not answer."""
        try:
            return httpx.get(self.base_url + path, timeout=5.0, trust_env=False, verify=False).json()
        except httpx.TransportError:
            return {}

    def chat(self) -> Chat:
        """Return a client, which is closed with the server."""
        client = Chat(self.base_url)
        self._chats.append(client)
        return client

    def metric(self, name: str, **labels: str) -> float:
        """Return the value of one sample; 0.0 if it is absent."""
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        for line in httpx.get(
            self.base_url + "/metrics", timeout=PATIENCE_SECS, trust_env=False, verify=False
        ).text.splitlines():
            sample, _, value = line.rpartition(" ")
            if sample.partition("{")[0] == name and all(label in sample for label in wanted):
                return float(value)
        return 0.0

    def longer_stalls(self) -> dict[float, float]:
        """Return how many stalls of the loop were longer than each bucket's bound, in seconds, from one scrape."""
        text = httpx.get(self.base_url + "/metrics", timeout=PATIENCE_SECS, trust_env=False, verify=False).text
        counts = {
            float(bound): float(count)
            for bound, count in re.findall(r'openguild_loop_stall_seconds_bucket\{le="(.+)"\} (.+)', text)
        }
        return {bound: counts[math.inf] - count for bound, count in counts.items()}

    def stop(self, number: signal.Signals = signal.SIGTERM, secs: float = 30.0) -> int:
        """Send a signal and wait; return the exit status."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(secs)

    def records(self) -> list[dict[str, Any]]:
        """Return the log records; every line must be JSON."""
        return [json.loads(line) for line in self.log_path.read_text().splitlines() if line.strip()]

    def tail(self) -> str:
        return self.log_path.read_text()[-3000:]

    def __enter__(self) -> ServerProcess:
        return self if self.process is not None else self.start()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for client in self._chats:
            client.close()
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
