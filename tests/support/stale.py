"""A PostgreSQL whose standby lags when it is promoted: commits since `fall_behind` are lost."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import msgspec

from openguild_runtime.embedded import EmbeddedPostgres
from openguild_runtime.embedded.server import Job
from tests.support.waiting import wait_until


class StalePostgres(EmbeddedPostgres):
    """Its standby is a copy of the data directory. `promote` starts it in the primary's place: a real promotion, a new timeline."""

    def _job(self) -> Job:
        job = super()._job()
        return msgspec.structs.replace(job, argv=[*job.argv, "-c", "wal_level=replica"])

    def fall_behind(self) -> None:
        """Copy the primary to the standby, which gets nothing more from here on; the primary goes on."""
        self._end_guard(b"stop")
        shutil.copytree(self._directory, self._standby, copy_function=shutil.copy2)
        for directory, names, files in os.walk(self._standby):
            original = self._directory / os.path.relpath(directory, self._standby)
            give(directory, original)
            for name in (*names, *files):
                give(os.path.join(directory, name), original / name)
        self._launch()

    def promote(self, *, timeline: bool = True) -> None:
        """Kill the primary and start the standby in its place.

        Without `timeline` the copy merely replaces the primary's files, as a snapshot of the disk does.
        """
        self._end_guard(b"kill")
        shutil.rmtree(self._directory)
        self._standby.rename(self._directory)
        standby = self._directory / "standby.signal"
        if timeline:
            standby.touch()
            give(standby, self._directory)
        self._launch()
        if timeline and self.pid is not None:  # it answers reads already
            promote = self._directory / "promote"
            promote.touch()
            give(promote, self._directory)
            os.kill(self.pid, signal.SIGUSR1)
            wait_until(lambda: not standby.exists(), what="the promotion")

    @property
    def _standby(self) -> Path:
        return self._root / "standby"


def give(path: str | os.PathLike[str], like: str | os.PathLike[str]) -> None:
    """Give a file to the account that owns `like`."""
    owner = os.stat(like)
    os.chown(path, owner.st_uid, owner.st_gid)
