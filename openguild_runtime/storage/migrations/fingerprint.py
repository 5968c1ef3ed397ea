"""The fingerprint of the first step, which the step stores in the database. For the reader see origin.py."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable


def fingerprint(statements: Iterable[str]) -> str:
    """Return the fingerprint of the first step. Line breaks and indents do not count."""
    return hashlib.sha256("\0".join(" ".join(text.split()) for text in statements).encode()).hexdigest()[:16]


def leave_fingerprint(statements: Iterable[str]) -> str:
    """Return the SQL statement that stores the fingerprint of `statements`."""
    return f"COMMENT ON TABLE alembic_version IS 'first step {fingerprint(statements)}'"
