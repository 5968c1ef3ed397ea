"""Atomic file writes: after a crash, a file has either its old or its new content."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def write_atomically(path: Path, text: str, *, mode: int = 0o600, owner: tuple[int, int] | None = None) -> None:
    """Replace the file's content and sync it to the disk. Raises OSError and then changes nothing.

    The new file has `mode` and `owner` (uid, gid) from its creation. A process killed here leaves `<name>.<random>.new`.
    """
    fresh = path.with_name(f"{path.name}.{secrets.token_hex(4)}.new")
    try:
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as file:
            if owner is not None:
                os.fchown(file.fileno(), *owner)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def owner_for_new_file(directory: Path) -> tuple[int, int] | None:
    """Return the owner for a new file: for root that of the directory, who may start the server next, else None."""
    status = directory.stat()
    return (status.st_uid, status.st_gid) if os.geteuid() == 0 and status.st_uid != 0 else None


def sync_directory(directory: Path) -> None:
    """Sync the directory's entries to the disk."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_temporary_files(path: Path) -> None:
    """Remove temporary files that killed writers of `path` left. The caller must hold a lock on it."""
    for left in path.parent.glob(f"{path.name}.*.new"):
        left.unlink(missing_ok=True)


def read_stripped(path: Path) -> str | None:
    """Return the text without surrounding white space and NULs, or None if the file is missing or empty. Raises OSError.

    After a power cut, a file that was not written atomically can be empty or full of NULs.
    """
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip(" \t\r\n\0") or None
    except FileNotFoundError:
        return None
