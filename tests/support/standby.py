"""A PostgreSQL with a streaming standby, made by pg_basebackup from the embedded programs."""

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
    """Standbys can follow it."""

    def __init__(self, data_dir: Path, *, fsync: bool = False) -> None:
        super().__init__(data_dir, fsync=fsync, settings=REPLICATION)

    def make_synchronous(self) -> None:
        """From now on a commit is acknowledged when the standby has it on disk."""
        self._set("synchronous_standby_names", STANDBY)

    def return_alone(self) -> None:
        """Start again after a kill, and take writes without waiting for anybody: the former primary that nobody has fenced."""
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
        """Follow another primary than before."""
        host = primary.url.partition("@")[2].partition("/")[0]
        address, _, port = host.partition(":")
        (self._directory / "postgresql.auto.conf").write_text(
            f"primary_conninfo = 'host={address} port={port} user={ROLE} password={self._password} "
            f"application_name={STANDBY}'\n"
        )
        self.restart()

    def promote(self) -> None:
        """Make it a primary, on a timeline of its own."""
        assert self.pid is not None
        promote = self._directory / "promote"
        promote.touch()
        give(promote, self._directory)
        os.kill(self.pid, signal.SIGUSR1)
        wait_until(lambda: not (self._directory / "standby.signal").exists(), what="the promotion")

    def pause(self) -> None:
        """Let it receive and answer nothing more, until `resume`."""
        assert self.pid is not None
        os.kill(self.pid, signal.SIGSTOP)  # first: it waits for no child any more, so that none of them is gone
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
    """The URL that names the servers and wants the one that takes writes."""
    first = servers[0].url
    user, _, rest = first.rpartition("@")
    database = rest.partition("/")[2]
    hosts = ",".join(f"127.0.0.1:{server.port}" for server in servers)
    return f"{user}@{hosts}/{database}?target_session_attrs=read-write"
