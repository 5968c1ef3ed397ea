"""Files in memory: a database is made of 300 files, and a disk's file system takes most of the time of that."""

from __future__ import annotations

import os
from pathlib import Path

MEMORY = Path("/dev/shm")
NEEDED_BYTES = 6 << 30  # a run of four workers takes a third of this


def use_memory_for_files() -> None:
    """Let pytest make its temporary directories in memory where there is enough; PYTEST_DEBUG_TEMPROOT names another place."""
    if suits(MEMORY):
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


def suits(directory: Path) -> bool:
    """Tell whether the directory has room and may hold programs."""
    try:
        found = os.statvfs(directory)
    except OSError:
        return False
    room = found.f_bavail * found.f_frsize
    return room >= NEEDED_BYTES and not found.f_flag & os.ST_NOEXEC and os.access(directory, os.W_OK | os.X_OK)
