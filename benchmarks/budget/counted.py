"""Runs the whole server under callgrind, with a PostgreSQL and a nats-server outside of it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from openguild_runtime.embedded import EmbeddedNats, EmbeddedPostgres
from tests.support.chat import User
from tests.support.server import ServerProcess

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
HEADER = Path("/usr/include/valgrind/callgrind.h")
START_SECS = 120.0
LIMITS = {f"WEBSOCKET__MAX_CONNECTIONS{end}": 100_000 for end in ("", "_PER_USER", "_PER_ADDRESS")}


def missing() -> str | None:
    """Return what is missing for a count, or None."""
    for tool in ("valgrind", "cc"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed"
    return None if HEADER.exists() else f"{HEADER} is not there"


class CountedServer:
    """A server under callgrind. `count(name, action)` returns the instructions that it executes while `action` runs."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        counter = directory / "counter.so"
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", counter, HERE / "counter.c"], check=True)
        with contextlib.ExitStack() as stack:  # stops what has started, even if the rest fails to start
            self._start(directory, counter, stack)
            self._running = stack.pop_all()

    def _start(self, directory: Path, counter: Path, stack: contextlib.ExitStack) -> None:
        postgres, nats = EmbeddedPostgres(directory), EmbeddedNats(directory)
        stack.callback(postgres.stop)
        postgres.start()
        stack.callback(nats.stop)
        nats.start()
        self.server = ServerProcess(directory, DATABASE_URL=postgres.url, NATS__URL=nats.url, **LIMITS)
        environment = self.server.environment() | {
            "PYTHONHASHSEED": "0", "PYTHONPATH": str(ROOT), "BUDGET_COUNTER": str(counter), "MALLOC_ARENA_MAX": "1",
        }  # fmt: skip
        migrated = self.server.run_command("migrate")
        if migrated.returncode:
            raise RuntimeError(migrated.stderr)
        command = [
            "valgrind", "-q", "--vgdb=no", "--tool=callgrind", "--instr-atstart=no", "--callgrind-out-file=count", sys.executable,
            str(HERE / "server.py"),
        ]  # fmt: skip
        with self.server.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=directory, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
            )  # fmt: skip
        stack.push(self._process)
        stack.callback(self._process.kill)
        self.server.process = self._process
        self.server.wait_ready(START_SECS)

    def __enter__(self) -> CountedServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.close()

    @property
    def user(self) -> User:
        """A newly registered user."""
        return self.server.chat().user()

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()
        if not self._process.stdout.readline():
            raise RuntimeError(self.server.tail())

    def count(self, name: str, action: Callable[[], object]) -> int:
        """Return the instructions of `action`."""
        self._tell("begin")
        action()
        self._tell(f"end {name}")
        return self._counted(name)

    def publish(self, count: int) -> None:
        """Publish `count` events to the subscribers of all channels."""
        self._tell(f"publish {count}")

    def unit(self) -> int:
        """Return the instructions of the yardstick (`server.unit`)."""
        return self._counted("unit")

    def _counted(self, name: str) -> int:
        """Return the latest count of `name` that callgrind has written."""
        for path in sorted(self._directory.glob("count.*"), key=lambda path: -int(path.suffix[1:])):
            text = path.read_text()
            if f"Client Request: {name}\n" in text:
                found = re.search(r"^totals: (\d+)", text, re.MULTILINE)
                assert found is not None, path
                return int(found[1])
        raise RuntimeError(f"callgrind has written no {name}: {sorted(os.listdir(self._directory))}")
