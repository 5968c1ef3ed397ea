"""Keeps a session in a file of one's own, so that a program goes on where it stopped."""

from __future__ import annotations

import json
import os
from pathlib import Path

from openguild_proto.client import Session


class SessionFile:
    """`path`: readable by its owner alone, replaced as a whole. Without one (None) nothing is kept."""

    def __init__(self, path: str | os.PathLike[str] | None) -> None:
        self._path = Path(path) if path is not None else None

    def load(self) -> Session | None:
        """Return the session that was saved, None without one. Raises OSError, ValueError naming the file."""
        if self._path is None or not self._path.exists():
            return None
        try:
            return Session.from_dict(json.loads(self._path.read_bytes()))
        except (ValueError, KeyError, TypeError, AttributeError) as failure:
            raise ValueError(f"{self._path} holds no session: delete it to log in again ({failure!r})") from failure

    def save(self, session: Session | None) -> None:
        """Save a session; None deletes the file. Raises OSError."""
        if self._path is None:
            return
        if session is None:
            self._path.unlink(missing_ok=True)
            return
        beside = self._path.with_name(f"{self._path.name}.new")
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w") as file:
            json.dump(session.to_dict(), file)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self._path)
