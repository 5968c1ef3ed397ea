"""Keeps idle sessions between two uses, without returning them to asyncpg's pool.

The pool uses a new task and a new proxy for each use, which doubles the cost of a short statement. Sessions that are idle for
long are returned to the pool, which closes them later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeAlias

import asyncpg
from asyncpg.pool import PoolConnectionProxy

Session: TypeAlias = "PoolConnectionProxy[asyncpg.Record]"
GiveBack: TypeAlias = "Callable[[asyncpg.Pool[asyncpg.Record], Session], None]"

KEEP_SECS = 30.0


def is_usable(session: Session) -> bool:
    """Return whether a session is open. Methods of an ended session, which the pool has taken back, raise InterfaceError."""
    try:
        return not session.is_closed()
    except asyncpg.InterfaceError:
        return False


class KeptSessions:
    """Idle sessions of `pool`, most recently used first. `give_back(pool, session)` schedules the return of one to its pool."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record], give_back: GiveBack) -> None:
        self.pool = pool
        self._give_back = give_back
        self._sessions: list[Session] = []
        self._least = 0  # the minimum since the last check: so many were not needed
        self._closed = False
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._sessions)

    def take(self) -> Session | None:
        """Remove and return a session, or None if the pool has to provide one."""
        sessions = self._sessions
        while sessions:
            session = sessions.pop()
            self._least = min(self._least, len(sessions))
            if is_usable(session):
                return session
            self._give_back(self.pool, session)
        return None

    def put(self, session: Session) -> None:
        """Keep a session after a successful use. After `close` it goes back to the pool."""
        if self._closed or not is_usable(session):
            self._give_back(self.pool, session)
            return
        self._sessions.append(session)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(KEEP_SECS, self._look)

    def close(self) -> None:
        """Return all sessions to the pool, and keep none afterwards."""
        self._closed = True
        self._least = len(self._sessions)
        self._return_unused()
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        self._return_unused()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(KEEP_SECS, self._look) if self._sessions else None

    def _return_unused(self) -> None:
        """Return the sessions at the bottom that were not used since the last check."""
        unused, self._sessions = self._sessions[: self._least], self._sessions[self._least :]
        self._least = len(self._sessions)
        for session in unused:
            self._give_back(self.pool, session)
