"""A real PgBouncer in transaction mode before a real PostgreSQL, if the machine has one (Debian: `pgbouncer`)."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from tests.support.waiting import free_port, wait_until


def pooler_program() -> str | None:
    return shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


@contextmanager
def transaction_pooler(program: str, server_url: str, directory: Path) -> Iterator[Callable[[str], str]]:
    """Yield a function that turns a URL of that server into one through the pooler, with 3 server connections per database."""
    server = urlsplit(server_url)
    port, log = free_port(), directory / "pgbouncer.log"
    (directory / "users.txt").write_text(f'"{server.username}" "{server.password}"\n')
    (directory / "pgbouncer.ini").write_text(
        f"""
        [databases]
        * = host={server.hostname} port={server.port}
        [pgbouncer]
        listen_addr = 127.0.0.1
        listen_port = {port}
        unix_socket_dir =
        auth_type = scram-sha-256
        auth_file = {directory}/users.txt
        pool_mode = transaction
        default_pool_size = 3
        max_client_conn = 500
        logfile = {log}
        """
    )
    command = [program, str(directory / "pgbouncer.ini")]
    as_root = os.geteuid() == 0
    if as_root:  # PgBouncer refuses to run as root
        for path in (directory, *directory.iterdir()):
            shutil.chown(path, "nobody")
    with open(directory / "output.log", "wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, user="nobody" if as_root else None)
    try:
        wait_until(lambda: process.poll() is not None or (log.exists() and "process up" in log.read_text()))
        assert process.poll() is None, (directory / "output.log").read_text()
        yield lambda url: url.replace(f":{server.port}/", f":{port}/")
    finally:
        process.terminate()
        process.wait()
