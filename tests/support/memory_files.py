"""Temporary files in memory: a database has 300 files, and creating them on a disk takes most of its time."""

from __future__ import annotations

import os
from pathlib import Path

MEMORY = Path("/dev/shm")
NEEDED_BYTES = 6 << 30  # a run with four workers uses a third of this


def use_memory_for_files() -> None:
    """Let pytest create its temporary directories in memory if there is room, unless PYTEST_DEBUG_TEMPROOT is set."""
    if suits(MEMORY):
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


def suits(directory: Path) -> bool:
    """Return whether the directory has room and allows programs to run."""
    try:
        found = os.statvfs(directory)
    except OSError:
        return False
    room = found.f_bavail * found.f_frsize
    return room >= NEEDED_BYTES and not found.f_flag & os.ST_NOEXEC and os.access(directory, os.W_OK | os.X_OK)
