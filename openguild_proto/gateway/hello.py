"""Builds `hello`, the first frame of the server (PROTOCOL 15.1)."""

from __future__ import annotations

from openguild_proto.gateway.frames import Hello, SocketLimits
from openguild_proto.limits import GATEWAY_AUTH_SECS, MAX_GATEWAY_LOGS, MAX_HELD_FRAMES, Limits
from openguild_proto.timestamps import from_millis

CAPABILITIES = ("logs", "commands", "typing", "presence")


def hello_frame(limits: Limits, heartbeat_secs: float, wall_ms: int) -> Hello:
    """Return the first frame. `wall_ms`: UTC milliseconds."""
    return Hello(
        heartbeat_ms=int(heartbeat_secs * 1_000),
        auth_ms=int(GATEWAY_AUTH_SECS * 1_000),
        limits=SocketLimits(MAX_GATEWAY_LOGS, limits.max_message_bytes, limits.max_frames_per_minute, MAX_HELD_FRAMES),
        server_time=from_millis(wall_ms),
        capabilities=list(CAPABILITIES),
    )
