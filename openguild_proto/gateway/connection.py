"""The interface between a gateway socket and its connection (PROTOCOL 15.5, 15.6, 15.8)."""

from __future__ import annotations

from dataclasses import replace

from openguild_proto.gateway.close_codes import GatewayClose
from openguild_proto.limits import GATEWAY_PING_SECS, GATEWAY_WRITE_SECS, Limits

CONNECTION_CODES: dict[str, int] = {
    "frame_rate_limit": GatewayClose.FRAME_RATE,
    "frame_timeout": GatewayClose.SLOW_FRAME,
    "ping_timeout": GatewayClose.SILENT,
}
"""reason of a close that `ServerConnection` decides -> the gateway's close code for it."""


def connection_limits(limits: Limits) -> Limits:
    """Return the limits of the connection of a gateway socket.

    Heartbeats instead of pings show whether the client is alive, and a client that reads nothing for a while is not
    disconnected.
    """
    return replace(limits, ping_interval_secs=GATEWAY_PING_SECS, write_timeout_secs=GATEWAY_WRITE_SECS)
