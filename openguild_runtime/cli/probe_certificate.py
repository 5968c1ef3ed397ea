"""The probe's check of the certificate of an https address: when it expires, and whether that is soon."""

from __future__ import annotations

import http.client
import ssl
import time
from typing import Any

DAY_SECS = 86_400
SOON_SECS = 2 * DAY_SECS  # automatic renewal happens weeks earlier, so it has failed by then


def certificate_end(host: str, port: int | None, timeout_secs: float) -> float:
    """Return when the certificate expires, in UTC seconds. Raises OSError, also if it is not valid now."""
    connection = http.client.HTTPSConnection(host, port, timeout=timeout_secs)
    try:
        connection.connect()
        presented: Any = connection.sock.getpeercert()
        return float(ssl.cert_time_to_seconds(presented["notAfter"]))
    finally:
        connection.close()


def describe_end(ends_at: float) -> tuple[str | None, str]:
    """Return a problem or None, and a note."""
    left = ends_at - time.time()
    text = f"ends in {left / DAY_SECS:.1f} days"
    return (text, "") if left < SOON_SECS else (None, text)
