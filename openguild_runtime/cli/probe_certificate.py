"""The probe's look at the certificate of an https address: when it ends, and whether that is soon."""

from __future__ import annotations

import http.client
import ssl
import time
from typing import Any

DAY_SECS = 86_400
SOON_SECS = 2 * DAY_SECS  # renewal is weeks earlier: what is left by then will not be renewed by itself


def certificate_end(host: str, port: int | None, timeout_secs: float) -> float:
    """Return when the certificate ends, in UTC seconds. Raises OSError, also if it is not valid now."""
    connection = http.client.HTTPSConnection(host, port, timeout=timeout_secs)
    try:
        connection.connect()
        presented: Any = connection.sock.getpeercert()
        return float(ssl.cert_time_to_seconds(presented["notAfter"]))
    finally:
        connection.close()


def describe_end(ends_at: float) -> tuple[str | None, str]:
    """Return the problem, None if there is none, and a note."""
    left = ends_at - time.time()
    text = f"ends in {left / DAY_SECS:.1f} days"
    return (text, "") if left < SOON_SECS else (None, text)
