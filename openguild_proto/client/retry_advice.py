"""Reads a response's advice on retrying the request."""

from __future__ import annotations


def parse_retry_after(value: str | None) -> float | None:
    """Return `Retry-After` in seconds (RFC 9110 10.2.3); None for a date, which is not supported."""
    return float(value) if value is not None and value.isascii() and value.isdigit() and len(value) < 6 else None


def is_temporary(status: int) -> bool:
    """Return whether a status is caused by overload, an outage or a drain, and not by the request itself or a missing
    feature (501).
    """
    return status in {408, 429} or (status >= 500 and status != 501)
