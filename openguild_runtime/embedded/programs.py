"""The programs of the wheels, at a location where a private server's account can run them.

Started as root, a private server runs as another account, which cannot run programs below a closed directory (root's home
has mode 0700) or installed with umask 077. The programs are then copied while they run. A copy works in any container: a mount
needs a capability, and PostgreSQL finds its files relative to its program.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

COPY_DIRECTORIES = ("/var/cache", "/var/tmp", "/tmp", "/run", "/dev/shm")  # noqa: S108 - the first suitable one is used
PREFIX = "openguild-programs-"
MIN_COPY_AGE_SECS = 60.0  # an older copy without a lock is stale: its guard was killed

READ, SEARCH = 0o4, 0o1


class Account(NamedTuple):
    """The user and group that a private server runs as."""

    uid: int
    gid: int

    def has_access(self, status: os.stat_result, access: int) -> bool:
        """Return whether the mode bits grant `access` (the last digit of a mode). The account has one group only."""
        if status.st_uid == self.uid:
            allowed = status.st_mode >> 6
        else:
            allowed = status.st_mode >> 3 if status.st_gid == self.gid else status.st_mode
        return allowed & access == access


class Programs(NamedTuple):
    """Installed programs: `parts` are directories and files below `root`, which keep their relative paths in a copy."""

    root: Path
    parts: tuple[str, ...]

    def are_accessible_to(self, account: Account) -> bool:
        """Return whether the account can read and run all of them where they are installed."""
        root = self.root.resolve()
        if not all(account.has_access(directory.stat(), SEARCH) for directory in (root, *root.parents)):
            return False
        return all(
            account.has_access(path.stat(), READ | SEARCH if path.is_dir() or os.access(path, os.X_OK) else READ)
            for part in self.parts
            for path in (*_between(root, part), root / part, *(root / part).rglob("*"))
        )

    def copy_for(self, account: Account) -> Path:
        """Copy them to a directory that the account can read but not change, and return its path. Raises OSError."""
        failure = OSError(f"they cannot be copied to any of {', '.join(COPY_DIRECTORIES)}")
        for directory in map(Path, COPY_DIRECTORIES):
            if _is_suitable(directory, account):
                _remove_stale_copies(directory)
                try:
                    return self._copy_to(directory)
                except OSError as error:
                    failure = error
        raise failure

    def _copy_to(self, directory: Path) -> Path:
        copy = Path(tempfile.mkdtemp(prefix=PREFIX, dir=directory))
        try:
            for part in self.parts:
                target = copy / part
                target.parent.mkdir(parents=True, exist_ok=True)
                if (self.root / part).is_dir():
                    shutil.copytree(self.root / part, target)
                else:
                    shutil.copy(self.root / part, target)
            for path in (copy, *copy.rglob("*")):
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & stat.S_IXUSR else 0o644)
        except BaseException:
            shutil.rmtree(copy, ignore_errors=True)
            raise
        return copy


def _between(root: Path, part: str) -> Iterator[Path]:
    """Return the directories between `root` and `part`."""
    return (root / above for above in Path(part).parents if above != Path())


def _is_suitable(directory: Path, account: Account) -> bool:
    """Return whether the account can run programs there and no other account can replace them."""
    try:
        if os.statvfs(directory).f_flag & os.ST_NOEXEC or not os.access(directory, os.W_OK):
            return False
        return all(
            account.has_access(each.stat(), SEARCH) and _is_tamper_proof(each.stat())
            for each in (directory, *directory.parents)
        )
    except OSError:
        return False


def _is_tamper_proof(status: os.stat_result) -> bool:
    """Return whether only root, or only an entry's owner, can rename entries of the directory."""
    return status.st_uid == 0 and (not status.st_mode & 0o022 or bool(status.st_mode & stat.S_ISVTX))


def _remove_stale_copies(directory: Path) -> None:
    """Remove copies whose guards were killed. A running guard holds a lock on its copy."""
    for copy in directory.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            status = copy.lstat()
            if status.st_uid == os.geteuid() and stat.S_ISDIR(status.st_mode):
                descriptor = os.open(copy, os.O_RDONLY | os.O_NOFOLLOW)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if time.time() - status.st_ctime > MIN_COPY_AGE_SECS:
                        shutil.rmtree(copy, ignore_errors=True)
                finally:
                    os.close(descriptor)
