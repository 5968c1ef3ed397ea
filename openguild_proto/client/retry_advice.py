"""Retry advice in a response."""

from __future__ import annotations


def parse_retry_after(value: str | None) -> float | None:
    """Return `Retry-After` in seconds (RFC 9110 10.2.3); None for a date, which is not supported."""
    return float(value) if value is not None and value.isascii() and value.isdigit() and len(value) < 6 else None


def is_temporary(status: int) -> bool:
    """Return whether a status is due to overload, an outage or a drain.

    Other statuses are due to the request, or to a feature that the server does not have (501).
    """
    return status in {408, 429} or (status >= 500 and status != 501)
