"""A PostgreSQL with a streaming standby, which pg_basebackup of the embedded programs creates."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

from openguild_runtime.embedded import EmbeddedPostgres
from openguild_runtime.embedded.postgres import postgres_programs
from openguild_runtime.embedded.server import ROLE
from tests.support.stale import give
from tests.support.waiting import wait_until

REPLICATION = {"wal_level": "replica", "max_wal_senders": "4", "wal_keep_size": "512MB", "hot_standby": "on"}
STANDBY = "standby1"


class PrimaryPostgres(EmbeddedPostgres):
    """A PostgreSQL that standbys can follow."""

    def __init__(self, data_dir: Path, *, fsync: bool = False) -> None:
        super().__init__(data_dir, fsync=fsync, settings=REPLICATION)

    def make_synchronous(self) -> None:
        """Acknowledge commits only when the standby has them on disk, from now on."""
        self._set("synchronous_standby_names", STANDBY)

    def return_alone(self) -> None:
        """Start again after a kill and accept writes without a standby, as a former primary that nobody has fenced."""
        self._set("synchronous_standby_names", "")
        self.restart_after_exit()

    def _set(self, name: str, value: str) -> None:
        path = self._directory / "postgresql.auto.conf"
        path.write_text(f"{name} = '{value}'\n")
        give(path, self._directory)
        if self.pid is not None:
            os.kill(self.pid, signal.SIGHUP)

    def _run_statements(self, directory: Any, statements: str) -> None:
        super()._run_statements(directory, f"{statements}ALTER ROLE {ROLE} REPLICATION\n")


class StandbyPostgres(EmbeddedPostgres):
    """A standby of `primary`, which must run. `promote` makes it another primary."""

    def __init__(self, data_dir: Path, primary: EmbeddedPostgres, *, fsync: bool = False) -> None:
        super().__init__(data_dir, fsync=fsync, settings=REPLICATION)
        self._primary = primary

    def _create_cluster(self) -> None:
        self._prepare_directory(self._directory)
        source = f"{self._primary.url}?application_name={STANDBY}"
        command = [postgres_programs() / "pg_basebackup", "-D", self._directory, "-d", source, "-X", "stream", "-R"]
        subprocess.run([*command, "-c", "fast", "--no-sync"], check=True, capture_output=True)
        for path in (self._directory, *self._directory.rglob("*")):
            give(path, self._root / "postgres")
        self._password = self._primary.url.partition(":")[2].partition(":")[2].partition("@")[0]
        self._save_password(self._password)

    def follow(self, primary: EmbeddedPostgres) -> None:
        """Follow another primary."""
        host = primary.url.partition("@")[2].partition("/")[0]
        address, _, port = host.partition(":")
        (self._directory / "postgresql.auto.conf").write_text(
            f"primary_conninfo = 'host={address} port={port} user={ROLE} password={self._password} "
            f"application_name={STANDBY}'\n"
        )
        self.restart()

    def promote(self) -> None:
        """Promote it to a primary, on its own timeline."""
        assert self.pid is not None
        promote = self._directory / "promote"
        promote.touch()
        give(promote, self._directory)
        os.kill(self.pid, signal.SIGUSR1)
        wait_until(lambda: not (self._directory / "standby.signal").exists(), what="the promotion")

    def pause(self) -> None:
        """Stop all its processes, so that it receives and answers nothing until `resume`."""
        assert self.pid is not None
        os.kill(self.pid, signal.SIGSTOP)  # the parent first: then it reaps no child, and all of them can be signalled
        for pid in self._children():
            os.kill(pid, signal.SIGSTOP)

    def resume(self) -> None:
        assert self.pid is not None
        for pid in (*self._children(), self.pid):
            os.kill(pid, signal.SIGCONT)

    def _children(self) -> list[int]:
        return [int(child) for child in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self._root)


def both(*servers: EmbeddedPostgres) -> str:
    """Return a URL that names both servers and selects the one that accepts writes."""
    first = servers[0].url
    user, _, rest = first.rpartition("@")
    database = rest.partition("/")[2]
    hosts = ",".join(f"127.0.0.1:{server.port}" for server in servers)
    return f"{user}@{hosts}/{database}?target_session_attrs=read-write"
