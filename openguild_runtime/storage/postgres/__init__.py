"""The store in PostgreSQL: one module for each kind of data, and the modules that run their statements."""

from __future__ import annotations

from openguild_runtime.storage.postgres.store import PERFORMERS, PostgresStorage

__all__ = ["PERFORMERS", "PostgresStorage"]
