"""Keeps sessions between two uses, without a return to asyncpg's pool.

The pool returns a session in a task of its own, behind a shield, and makes a new proxy for each use: twice the cost of a short
statement. A session that is idle for long goes back to the pool, which closes it in its time.
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
    """Return whether a session is open. One that has ended was taken back by its pool, whatever is asked of it then raises."""
    try:
        return not session.is_closed()
    except asyncpg.InterfaceError:
        return False


class KeptSessions:
    """Idle sessions of `pool`, the last one used first. `give_back(pool, session)` returns one to its pool, later."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record], give_back: GiveBack) -> None:
        self.pool = pool
        self._give_back = give_back
        self._sessions: list[Session] = []
        self._least = 0  # how few there were since the last look: so many were of no use
        self._closed = False
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._sessions)

    def take(self) -> Session | None:
        """Remove and return a session; None: the pool must provide one."""
        sessions = self._sessions
        while sessions:
            session = sessions.pop()
            self._least = min(self._least, len(sessions))
            if is_usable(session):
                return session
            self._give_back(self.pool, session)
        return None

    def put(self, session: Session) -> None:
        """Keep a session that was used without a failure, and has not been renewed since."""
        if self._closed or not is_usable(session):
            self._give_back(self.pool, session)
            return
        self._sessions.append(session)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(KEEP_SECS, self._look)

    def close(self) -> None:
        """Return all sessions to the pool, and keep none from now on."""
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
        """Return the sessions at the bottom that were not taken since the last look."""
        unused, self._sessions = self._sessions[: self._least], self._sessions[self._least :]
        self._least = len(self._sessions)
        for session in unused:
            self._give_back(self.pool, session)
