"""deploy/backup.sh reports its results, and concurrent backups are each complete; deploy/restore.sh keeps mirrored messages."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

from openguild_runtime.embedded.postgres import postgres_programs
from tests.conftest import run_apart
from tests.support.server import ROOT
from tests.support.waiting import wait_until

URL = "postgresql://openguild@db/chat"
# A pg_dump that writes what the test tells it to, with pauses.
PG_DUMP = """#!/bin/sh
file=${6#--file=}
printf %s "$CONTENT" >"$file"
while [ -e "$WAIT" ]; do sleep 0.02; done
printf %s "$CONTENT" >>"$file"
exit "$STATUS"
"""


class Backups:
    """A directory of backups, and the metrics file of the textfile collector."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "backups"
        self.metrics = directory / "backup.prom"
        self._programs = directory / "bin"
        for path in (self.directory, self._programs):
            path.mkdir()
        program = self._programs / "pg_dump"
        program.write_text(PG_DUMP)
        program.chmod(0o755)
        psql = self._programs / "psql"
        psql.write_text("#!/bin/sh\necho own\n")
        psql.chmod(0o755)

    def start(
        self, *, content: str = "data", status: int = 0, wait: str = "", metrics: Path | None = None
    ) -> subprocess.Popen[str]:
        environment = os.environ | {
            "PATH": f"{self._programs}:{os.environ['PATH']}",
            "CONTENT": content,
            "STATUS": str(status),
            "WAIT": wait,
        }
        command = [ROOT / "deploy/backup.sh", URL, self.directory / "backup", metrics or self.metrics]
        return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)

    def run(self, *, status: int = 0, metrics: Path | None = None) -> tuple[int, str]:
        with self.start(status=status, metrics=metrics) as process:
            told = process.communicate()[1]
        return process.returncode, told

    def samples(self) -> dict[str, float]:
        lines = [line.split() for line in self.metrics.read_text().splitlines() if not line.startswith("#")]
        return {name: float(value) for name, value in lines}

    def files(self) -> list[str]:
        return sorted(path.name for path in self.directory.iterdir())


@pytest.fixture
def backups(tmp_path: Path) -> Backups:
    return Backups(tmp_path)


def test_a_failure_is_told_and_the_last_success_stays(backups: Backups) -> None:
    assert backups.run(status=1)[0] == 1
    assert backups.samples() == {"openguild_backup_success": 0}
    before = int(time.time())
    assert backups.run() == (0, "")
    good = backups.samples()
    assert before <= good["openguild_backup_timestamp_seconds"] <= time.time()
    assert (good["openguild_backup_success"], good["openguild_backup_bytes"]) == (1, 8)
    assert backups.run(status=1)[0] == 1
    assert backups.samples() == good | {"openguild_backup_success": 0}
    assert backups.files() == ["backup"]
    assert backups.metrics.stat().st_mode & 0o777 == 0o644, "the collector is another user"
    assert list(backups.metrics.parent.glob("*.part.*")) == []


def test_metrics_that_cannot_be_written_are_an_error(backups: Backups) -> None:
    """Otherwise the next failure would go unnoticed."""
    status, told = backups.run(metrics=backups.directory / "nowhere/backup.prom")
    assert status == 1
    assert "nowhere/backup.prom" in told
    assert backups.files() == ["backup"], "the backup is good"


def test_two_at_the_same_time_are_each_whole(backups: Backups, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    with backups.start(content="slow", wait=str(gate)) as slow:
        wait_until(lambda: len(backups.files()) == 1, what="the slow one's beginning")
        with backups.start(content="quick") as quick:
            pass
        assert quick.returncode == 0
        assert (backups.directory / "backup").read_text() == "quickquick"
        gate.unlink()
    assert slow.returncode == 0
    assert (backups.directory / "backup").read_text() == "slowslow"


def test_what_a_killed_one_left_is_removed(backups: Backups) -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    (backups.directory / f"backup.part.{process.pid}").touch()
    (backups.directory / f"backup.part.{os.getpid()}").touch()
    assert backups.run() == (0, "")
    assert backups.files() == ["backup", f"backup.part.{os.getpid()}"]


def test_a_restore_leaves_mirrored_logs_their_epochs(tmp_path: Path, database_url: str, empty_url: str) -> None:
    """A mirror whose epoch differs from its owner's starts again, without its older messages."""
    environment = os.environ | {"PATH": f"{postgres_programs()}:{os.environ['PATH']}"}  # of the server's version
    guild, own = str(uuid4()), str(uuid4())
    statements = (
        f"INSERT INTO guilds (guild_id, name, created_at, origin) VALUES ('{guild}', 'g', now(), 'owner.test')",
        f"INSERT INTO logs (log_id, kind, epoch) VALUES ('{guild}', 'guild', 7), ('{own}', 'guild', 7)",
        f"INSERT INTO federation_mirrors (log_id, guild_id) VALUES ('{guild}', '{guild}')",
    )
    epochs: dict[str, int] = {}

    async def fill() -> None:
        connection = await asyncpg.connect(database_url)
        await connection.execute(";".join(statements))
        await connection.close()

    async def look() -> None:
        connection = await asyncpg.connect(empty_url)
        epochs.update(
            {str(row["log_id"]): row["epoch"] for row in await connection.fetch("SELECT log_id, epoch FROM logs")}
        )
        await connection.close()

    run_apart(fill)
    for command in (
        [ROOT / "deploy/backup.sh", database_url, tmp_path / "backup"],
        [ROOT / "deploy/restore.sh", tmp_path / "backup", empty_url],
    ):
        subprocess.run(command, check=True, env=environment)
    run_apart(look)
    assert epochs[guild] == 7
    assert epochs[own] != 7


def test_a_pooler_is_refused_because_its_sessions_are_shared(
    tmp_path: Path, database_url: str, pooled: Callable[[str], str]
) -> None:
    """pg_dump empties the search_path of a pooled session; the server that gets it next would find no table."""
    environment = os.environ | {"PATH": f"{postgres_programs()}:{os.environ['PATH']}"}
    backup, through = tmp_path / "backup", pooled(database_url)
    for command in (
        [ROOT / "deploy/backup.sh", through, backup],
        [ROOT / "deploy/restore.sh", ROOT / "README.md", through],
    ):
        run = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
        assert (run.returncode, run.stdout) == (2, "")
        assert run.stderr.startswith("the URL leads to a pooler")
    assert not backup.exists()


def test_a_database_that_is_away_is_not_called_a_pooler(tmp_path: Path) -> None:
    environment = os.environ | {"PATH": f"{postgres_programs()}:{os.environ['PATH']}"}
    command = [ROOT / "deploy/backup.sh", "postgresql://127.0.0.1:1/chat", tmp_path / "backup"]
    run = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    assert run.returncode == 1
    assert "Connection refused" in run.stderr
    assert "pooler" not in run.stderr
