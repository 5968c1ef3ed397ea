"""What a refusal of the server says about trying again."""

from __future__ import annotations


def parse_retry_after(value: str | None) -> float | None:
    """`Retry-After` in seconds (RFC 9110 10.2.3); a date is not understood and gives None."""
    return float(value) if value is not None and value.isascii() and value.isdigit() and len(value) < 6 else None


def is_temporary(status: int) -> bool:
    """A refusal that says nothing about what was asked: overload, an outage, or a server that is going away."""
    return status in {408, 429} or status >= 500
