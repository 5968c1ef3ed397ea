"""The server under endurance, its proxies, and the resources it holds: descriptors, tasks, connections, subscribers, memory."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from benchmarks.load.actors import prepared, resident_bytes
from openguild_runtime.embedded import EmbeddedNats, EmbeddedPostgres
from tests.support.chat import User
from tests.support.server import ServerProcess
from tests.support.waiting import free_port, wait_until

HERE = Path(__file__).parent
LIVES = HERE / "lives.py"
WATCHED = HERE / "watched_server.py"

NGINX = """
daemon off; master_process off; pid {directory}/nginx.pid; error_log /dev/null;
events {{ worker_connections 4000; }}
http {{
  access_log off; client_body_temp_path {directory}/b; proxy_temp_path {directory}/p;
  fastcgi_temp_path {directory}/f; uwsgi_temp_path {directory}/u; scgi_temp_path {directory}/s;
  map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
  upstream server {{ server 127.0.0.1:{port}; keepalive 32; }}
  server {{ listen 127.0.0.1:{own};
    location / {{ proxy_pass http://server; proxy_http_version 1.1; proxy_read_timeout 3600s;
      proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade;
      proxy_set_header X-Forwarded-For $remote_addr; }} }}
}}
"""
HAPROXY = """
global
  maxconn 4000
defaults
  mode http
  option abortonclose
  option forwardfor
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  timeout tunnel 1h
frontend front
  bind 127.0.0.1:{own}
  default_backend server
backend server
  server one 127.0.0.1:{port}
"""


class Held(NamedTuple):
    """The resources of a server at one moment.

    `descriptors`: without the database's pool and the clients. `connections`: without that of the request itself. `memory_mib`: the
    process's resident memory. `replay_pages_mib`: the part of it in a cache bounded in bytes, the pages of logs that clients read.
    """

    descriptors: int
    tasks: int
    connections: int
    streams: int
    subscribers: int
    memory_mib: float
    replay_pages_mib: float


class WatchedServer(ServerProcess):
    """openguild-server on the named loop; it also reports counts that no metric has."""

    def __init__(self, directory: Path, loop: str, **settings: object) -> None:
        super().__init__(directory, **settings)
        self.counts = directory / "counts"
        self.program = (str(WATCHED), loop, str(self.counts))

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def held(self, *, settled: bool = False) -> Held:
        """Return the current resources. `settled`: after a garbage collection, and with freed memory returned to the system."""
        settle = self.counts.with_suffix(".settle")
        if settled:
            settle.touch()
        else:
            settle.unlink(missing_ok=True)
        self.counts.unlink(missing_ok=True)
        os.kill(self.pid, signal.SIGUSR2)
        wait_until(self.counts.exists, what="the counts")
        counts = json.loads(self.counts.read_text())
        memory_mib = resident_bytes(self.pid) / 2**20
        return Held(
            descriptors=counts["descriptors"],
            tasks=counts["tasks"],
            connections=int(self.metric("openguild_connections")) - 1,
            streams=int(self.metric("openguild_websocket_connections")),
            subscribers=int(self.metric("openguild_subscribers")),
            memory_mib=round(memory_mib, 1),
            replay_pages_mib=round(counts["replay_pages"] / 2**20, 2),
        )


@contextmanager
def serving(directory: Path, loop: str) -> Iterator[tuple[WatchedServer, User, str]]:
    """Run a server with its own PostgreSQL and NATS, a user, and a channel of that user."""
    directory.chmod(0o755)
    postgres, nats = EmbeddedPostgres(directory), EmbeddedNats(directory)
    postgres.start()
    nats.start()
    server = WatchedServer(
        directory, loop, DATABASE_URL=postgres.url, NATS__URL=nats.url, TRUSTED_PROXIES="127.0.0.1",
        WEBSOCKET__MAX_CONNECTIONS_PER_USER=1_000_000, LOG_FORMAT="json",
    )  # fmt: skip
    try:
        migrated = server.run_command("migrate")
        if migrated.returncode:
            raise RuntimeError(migrated.stderr)
        server.start()
        yield server, *prepared(server.base_url)
    finally:
        server.__exit__(None, None, None)
        nats.stop()
        postgres.stop()


@contextmanager
def proxies(directory: Path, port: int) -> Iterator[list[int]]:
    """Run nginx and haproxy, if installed, before the server at `port`; yield their ports."""
    started: list[subprocess.Popen[bytes]] = []
    ports: list[int] = []
    try:
        for program, text in (("nginx", NGINX), ("haproxy", HAPROXY)):
            path = shutil.which(program) or shutil.which(program, path="/usr/sbin")
            if path is None:
                print(f"{program} is not installed: skipped", file=sys.stderr)
                continue
            own, file = free_port(), directory / f"{program}.conf"
            file.write_text(text.format(directory=directory, port=port, own=own))
            flags = ["-c", str(file)] if program == "nginx" else ["-f", str(file)]
            started.append(subprocess.Popen([path, *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
            ports.append(own)
        for own in ports:
            wait_until(partial(_listens, own), what="a proxy")
        yield ports
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait(10)


def _listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def lives(
    ports: list[int],
    user: User,
    channel: str,
    *,
    count: int,
    wild: float,
    seed: int,
    secs: float = 1e9,
    rate: float = 0,
) -> subprocess.Popen[str]:
    """Start a process of lives.py."""
    arguments = [",".join(map(str, ports)), user.token, channel, *map(str, (count, wild, seed, secs, rate))]
    return subprocess.Popen([sys.executable, str(LIVES), *arguments], stdout=subprocess.PIPE, text=True)
