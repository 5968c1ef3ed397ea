"""Fields of every log record: of the process, and of the request that the current task works for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The request of the current task or callback; those that it starts inherit it."""

process_fields: dict[str, int | str] = {}
"""In every record of this process."""


@contextmanager
def bound_request(identifier: str) -> Iterator[None]:
    """Have the records within carry the id of a request."""
    token = request_id.set(identifier)
    try:
        yield
    finally:
        request_id.reset(token)
