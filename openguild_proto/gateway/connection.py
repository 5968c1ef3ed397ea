"""The interface of a gateway socket to the connection under it (PROTOCOL 15.5, 15.6, 15.8)."""

from __future__ import annotations

from dataclasses import replace

from openguild_proto.gateway.close_codes import GatewayClose
from openguild_proto.limits import GATEWAY_PING_SECS, GATEWAY_WRITE_SECS, Limits

CONNECTION_CODES: dict[str, int] = {
    "frame_rate_limit": GatewayClose.FRAME_RATE,
    "frame_timeout": GatewayClose.SLOW_FRAME,
    "ping_timeout": GatewayClose.SILENT,
}
"""The closes that `ServerConnection` decides by itself: their reason in the metric -> the close code."""


def connection_limits(limits: Limits) -> Limits:
    """Return the limits of the connection: heartbeats instead of pings show that the client is there, and a reader that
    accepts nothing for a while is not closed."""
    return replace(limits, ping_interval_secs=GATEWAY_PING_SECS, write_timeout_secs=GATEWAY_WRITE_SECS)
