"""The store in PostgreSQL: one module per noun, and the parts that run their statements."""

from __future__ import annotations

from openguild_runtime.storage.postgres.store import PERFORMERS, PostgresStorage

__all__ = ["PERFORMERS", "PostgresStorage"]
