"""Files and ports that both private servers need."""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def is_taken(port: int) -> bool:
    """Whether somebody listens on this TCP port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
        return False


def write_private(path: Path, text: str) -> None:
    """Replace the file; readable by its owner alone from the first moment."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


def drop_large_log(path: Path, limit_bytes: int = 4 * 1024 * 1024) -> None:
    """Remove the log before a start where it has outgrown `limit_bytes`."""
    if path.exists() and path.stat().st_size > limit_bytes:
        path.unlink()


def lines_of(path: Path) -> list[str]:
    """The file's lines; none where there is no file."""
    try:
        return path.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return []


def is_locked(path: Path) -> bool:
    """Whether another process holds the lock file. Raises PermissionError where it may not be asked."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
