"""Helpers for files, ports and privileges, used by both private servers."""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path

MIN_FREE_BYTES = 64 * 1024


def free_port() -> int:
    """Return a free TCP port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def is_taken(port: int) -> bool:
    """Return whether this TCP port of 127.0.0.1 is in use."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
        return False


def drop_large_log(path: Path, limit_bytes: int = 4 * 1024 * 1024) -> None:
    """Remove the log if it is larger than `limit_bytes`. To be called before a start."""
    if path.exists() and path.stat().st_size > limit_bytes:
        path.unlink()


def read_lines(path: Path, since: int = 0) -> list[str]:
    """Return the file's lines from byte `since` on, or no lines if the file is missing."""
    try:
        with path.open("rb") as file:
            file.seek(since)
            return file.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        return []


def is_full(directory: Path) -> bool:
    """Return whether its file system has no free space or no free inodes."""
    status = os.statvfs(directory)
    return status.f_bavail * status.f_frsize < MIN_FREE_BYTES or (status.f_files > 0 and status.f_favail == 0)


def missing_capabilities(needed: dict[str, int]) -> list[str]:
    """Return those of the capabilities (name: number) that this process lacks, or none on systems without capabilities."""
    for line in read_lines(Path("/proc/self/status")):
        name, _, value = line.partition(":")
        if name == "CapEff":
            return [f"CAP_{each}" for each, number in needed.items() if not int(value, 16) & 1 << number]
    return []


def maps_other_accounts() -> bool:
    """Return whether this user namespace maps more than one user."""
    counts = [line.split()[2] for line in read_lines(Path("/proc/self/uid_map"))]
    return not counts or sum(map(int, counts)) > 1


def is_locked(path: Path) -> bool:
    """Return whether another process holds the lock file. Raises PermissionError if it cannot be opened."""
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
