"""The servers of the HTTP benchmark, each a process with OpenGuild's paths and bodies for the jobs that it does."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import asyncpg
import httpx

from benchmarks.lab.program import FailedError
from benchmarks.load.actors import RealServer
from openguild_runtime.embedded import EmbeddedPostgres
from tests.support.waiting import free_port, wait_until

HERE = Path(__file__).parent
UVICORN_PEERS = {"fastapi": ("fastapi_app:app",), "bare-asgi": ("bare_asgi:app", "--no-access-log")}
"""The arguments of uvicorn. To add a peer, add a module with its routes in peers/, its name in jobs.py, and a line here."""
NEEDS = {
    "fastapi": ("fastapi", "uvicorn", "httptools", "uvloop", "asyncpg"),
    "bare-asgi": ("uvicorn", "httptools", "uvloop"),
}
NAMES = ("openguild", *UVICORN_PEERS)


def missing(name: str) -> str | None:
    """Return what is missing to run a server here, or None."""
    lacking = [module for module in NEEDS.get(name, ()) if find_spec(module) is None]
    return f"not installed: {', '.join(lacking)}" if lacking else None


class Target:
    """A running server, with its port and the process whose CPU is counted."""

    def __init__(self, name: str, port: int, pid: int) -> None:
        self.name = name
        self.port = port
        self.pid = pid
        self.url = f"http://127.0.0.1:{port}"


@contextmanager
def running(names: Sequence[str], directory: Path) -> Iterator[dict[str, Target]]:
    """Start the servers, all on one PostgreSQL with fsync, each with its own database."""
    server = RealServer(directory, SESSION__MAX_LOGINS_PER_ACCOUNT_PER_WINDOW=1_000_000)
    processes: dict[str, subprocess.Popen[bytes]] = {}
    found = {"openguild": Target("openguild", server.server.port, server.pid)}
    try:
        for name in names:
            if name != "openguild":
                target, process = _start_uvicorn(name, server.postgres, directory)
                processes[name] = process
                found[name] = target
        for target in found.values():
            process = processes.get(target.name)
            wait_until(
                lambda target=target, process=process: _answers(target, process, directory),
                what=f"{target.name} to answer",
            )
        yield {name: found[name] for name in names}
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
        server.close()


def _start_uvicorn(name: str, postgres: EmbeddedPostgres, directory: Path) -> tuple[Target, subprocess.Popen[bytes]]:
    database = name.replace("-", "_")
    asyncio.run(_create_database(postgres.url, database))
    port = free_port()
    application, *flags = UVICORN_PEERS[name]
    command = [
        sys.executable, "-m", "uvicorn", application, "--app-dir", str(HERE / "peers"), "--http", "httptools", "--loop", "uvloop",
        "--port", str(port), *flags,
    ]  # fmt: skip
    environment = os.environ | {"DATABASE_URL": postgres.database_url(database)}
    with (directory / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    return Target(name, port, process.pid), process


async def _create_database(url: str, name: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(f"CREATE DATABASE {name}")
    finally:
        await connection.close()


def _answers(target: Target, process: subprocess.Popen[bytes] | None, directory: Path) -> bool:
    if process is not None and process.poll() is not None:
        log = (directory / f"{target.name}.log").read_text(errors="replace")
        raise FailedError(f"{target.name} ended with {process.returncode}: {log[-2_000:]}")
    try:
        return httpx.get(f"{target.url}/version", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False
