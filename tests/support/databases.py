"""Databases of the run's PostgreSQL, created for tests and dropped after them over one connection."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager

import anyio.from_thread
import asyncpg

from openguild_runtime.embedded import EmbeddedPostgres
from openguild_runtime.storage import migrations

TEMPLATE = "openguild_template"


class Databases:
    """Creates and drops databases, blocking: its connection has a loop in its own thread, because a test's loop may be running."""

    def __init__(self, postgres: EmbeddedPostgres, portal: anyio.from_thread.BlockingPortal) -> None:
        self._postgres = postgres
        self._portal = portal
        self._numbers = itertools.count(1)
        self._connection = portal.call(asyncpg.connect, postgres.url)

    def close(self) -> None:
        self._portal.call(self._connection.close)

    def make_template(self) -> None:
        self._create(TEMPLATE, "template1")
        self._portal.call(migrations.upgrade, self._postgres.database_url(TEMPLATE))

    @contextmanager
    def database(self, template: str = TEMPLATE) -> Iterator[str]:
        """Yield the URL of a new database, which is dropped at the end with any sessions left in it."""
        name = f"openguild_{next(self._numbers)}"
        self._create(name, template)
        yield self._postgres.database_url(name)
        self._portal.call(self._connection.execute, f'DROP DATABASE "{name}" WITH (FORCE)')

    def _create(self, name: str, template: str) -> None:
        # file copy: copying the template through the WAL takes twice as long
        statement = f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY FILE_COPY'
        self._portal.call(self._connection.execute, statement)
