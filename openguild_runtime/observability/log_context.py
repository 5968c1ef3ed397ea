"""Fields of every log record: those of the process, and the ID of the current task's request."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The ID of the request that the current task or callback works for. Tasks inherit it."""

process_fields: dict[str, int | str] = {}
"""Fields of every record of this process."""


@contextmanager
def bound_request(identifier: str) -> Iterator[None]:
    """Set the request ID of records within the block."""
    token = request_id.set(identifier)
    try:
        yield
    finally:
        request_id.reset(token)
