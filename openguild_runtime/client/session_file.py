"""Keeps a session in a file, so that a program continues where it stopped."""

from __future__ import annotations

import json
import logging
import os
from contextlib import suppress
from pathlib import Path

from openguild_proto.client import Session

log = logging.getLogger("openguild.client")


class SessionFile:
    """The file at `path`, readable by its owner only and replaced atomically. Without a path (None), nothing is kept."""

    def __init__(self, path: str | os.PathLike[str] | None) -> None:
        self._path = Path(path) if path is not None else None
        self._is_behind = False

    def load(self) -> Session | None:
        """Return the saved session, or None. Raises OSError, and ValueError with the name of an invalid file."""
        if self._path is None or not self._path.exists():
            return None
        try:
            return Session.from_dict(json.loads(self._path.read_bytes()))
        except (ValueError, KeyError, TypeError, AttributeError) as failure:
            raise ValueError(f"{self._path} contains no session: delete it to log in again ({failure!r})") from failure

    def save(self, session: Session | None) -> None:
        """Save a session, or delete the file for None. Raises OSError with the name of the file."""
        if self._path is None:
            return
        if session is None:
            self._path.unlink(missing_ok=True)
            return
        beside = self._path.with_name(f"{self._path.name}.new")
        try:
            handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(handle, "w") as file:
                json.dump(session.to_dict(), file)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self._path)
        except OSError as failure:
            with suppress(OSError):
                beside.unlink(missing_ok=True)
            raise OSError(failure.errno, failure.strerror, str(self._path)) from failure

    def try_save(self, session: Session | None) -> None:
        """Save a session; if that fails, warn once and leave it to the next call."""
        try:
            self.save(session)
        except OSError as failure:
            if not self._is_behind:
                log.warning(
                    "cannot write %s (%s): retrying; a program that ends now repeats events or has to log in again",
                    self._path,
                    failure.strerror,
                )
            self._is_behind = True
        else:
            if self._is_behind:
                log.warning("%s can be written again", self._path)
            self._is_behind = False
