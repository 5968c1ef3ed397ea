"""Connects to the primary among the hosts of a database URL (openguild_proto/policy/failover.py)."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import anyio
import asyncpg
import structlog

from openguild_proto.policy.failover import PrimaryChoice
from openguild_runtime.storage.connecting import DatabaseUnusable, connect

FRESH_SECS = 1.0  # how long the result of a check is used
LATE_SECS = 1.0  # how long to wait for the remaining hosts once one has answered
LOOK_LIMIT_SECS = 3.0
TIMELINE = """
SELECT CASE WHEN NOT pg_is_in_recovery() THEN
    ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::bigint
END
"""

# Errors of a host that cannot be reached or is not the primary.
FAILURES = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, DatabaseUnusable)

log = structlog.get_logger("openguild.storage")


def single_hosts(url: str) -> list[str]:
    """Split a URL with several hosts into one URL for each host, in order."""
    parts = urlsplit(url)
    user, at, hosts = parts.netloc.rpartition("@")
    return [urlunsplit(parts._replace(netloc=f"{user}{at}{host}")) for host in hosts.split(",")]


class PrimaryConnector:
    """Opens sessions with the primary. A single host is used unchecked."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._hosts = single_hosts(url)
        self._choice = PrimaryChoice()
        self._chosen: int | None = None
        self._looked_at = float("-inf")
        self._looking = anyio.Lock()

    @property
    def has_several(self) -> bool:
        """Whether the URL has several hosts."""
        return len(self._hosts) > 1

    async def connect(self, _url: str | None = None, **options: Any) -> asyncpg.Connection[asyncpg.Record]:
        """Return a new session. Raises asyncpg's exceptions, and DatabaseUnusable, also if only former primaries are found."""
        if not self.has_several:
            return await connect(self._url, **options)
        await self.find_primary(options)
        if self._chosen is None:
            raise DatabaseUnusable("read_only")
        try:
            return await connect(self._hosts[self._chosen], **options)
        except BaseException:
            self._looked_at = float("-inf")  # check again, the host may be down
            raise

    async def find_primary(self, options: dict[str, Any]) -> bool:
        """Check all hosts, unless that was done within FRESH_SECS. Return whether another host has become the primary.

        Raises a host's exception if no host answers as a primary.
        """
        async with self._looking:
            if time.monotonic() - self._looked_at < FRESH_SECS:
                return False
            found = await self._ask_all(options)
            former, self._chosen = self._chosen, self._choice.choose(found)
            self._looked_at = time.monotonic()
        if self._chosen is None and found:
            log.warning(
                "the hosts of database_url that accept writes are former primaries: they are not used",
                timeline=self._choice.newest,
            )
        if former is None or self._chosen is None or former == self._chosen:
            return False
        log.warning("another host of database_url is the primary now", host=self._chosen, timeline=self._choice.newest)
        return True

    async def _ask_all(self, options: dict[str, Any]) -> dict[int, int]:
        """Return the timelines of the hosts that accept writes, by number."""
        found: dict[int, int] = {}
        failures: dict[int, Exception] = {}
        answered, ended = anyio.Event(), anyio.Event()

        async def ask(number: int) -> None:
            try:
                timeline = await self._timeline(self._hosts[number], options)
            except FAILURES as failure:
                failures[number] = failure
            else:
                if timeline is not None:
                    found[number] = timeline
                    answered.set()
                else:
                    failures[number] = DatabaseUnusable("read_only")
            if len(found) + len(failures) == len(self._hosts):
                answered.set()
                ended.set()

        async with anyio.create_task_group() as tasks:
            for number in range(len(self._hosts)):
                tasks.start_soon(ask, number)
            with anyio.move_on_after(LOOK_LIMIT_SECS):
                with anyio.move_on_after(LATE_SECS):
                    await ended.wait()
                await answered.wait()
            tasks.cancel_scope.cancel()
        if not found:
            raise next(iter(failures.values()), TimeoutError())
        return found

    async def _timeline(self, host: str, options: dict[str, Any]) -> int | None:
        connection = await connect(host, **options)
        try:
            timeline: int | None = await connection.fetchval(TIMELINE)
        finally:
            connection.terminate()
        return timeline
