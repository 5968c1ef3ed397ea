"""Files that are there whole or not at all, however the process or the machine ends."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def write_atomically(path: Path, text: str, *, mode: int = 0o600, owner: tuple[int, int] | None = None) -> None:
    """Replace the file by one with this text; it is on the disk when this returns. Raises OSError: then nothing changed.

    `mode` and `owner` (uid, gid) hold from the first moment. A process that is killed here may leave `<name>.<random>.new` behind.
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
    """Who is to own a new file there: root gives it to the directory's owner, who may start the server next."""
    status = directory.stat()
    return (status.st_uid, status.st_gid) if os.geteuid() == 0 and status.st_uid != 0 else None


def sync_directory(directory: Path) -> None:
    """Put on the disk which files the directory has."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_temporary_files(path: Path) -> None:
    """What killed writers of `path` left. Only for those who hold a lock on it: a writer may be at work."""
    for left in path.parent.glob(f"{path.name}.*.new"):
        left.unlink(missing_ok=True)


def read_stripped(path: Path) -> str | None:
    """The text without white space and NULs around it; None where there is no file or nothing in it. Raises OSError.

    A power cut leaves a file that was not written whole empty, or full of NULs.
    """
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip(" \t\r\n\0") or None
    except FileNotFoundError:
        return None
