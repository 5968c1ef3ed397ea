"""One frame of each kind, for whatever tries them all."""

from __future__ import annotations

from typing import Any

from tests.support.gateway import EPOCH, log_name

CHANNEL = log_name(1).removeprefix("channel:")
HELLO = {
    "type": "hello", "heartbeat_ms": 25_000, "auth_ms": 1, "server_time": "", "capabilities": [],
    "limits": {"logs": 1, "frame_bytes": 65_536, "frames_per_minute": 1, "held_frames": 1},
}  # fmt: skip
READY = {
    "type": "ready", "user": {"user_id": "u", "username": "n"}, "session": {"session_id": "s", "expires_at": ""},
    "guilds": [], "heads": [],
}  # fmt: skip

FRAMES: list[dict[str, Any]] = [
    {"type": "auth", "token": "good", "ref": 1},
    {"type": "sub", "ref": 2, "logs": [{"log": log_name(1)}]},
    {"type": "unsub", "logs": [log_name(1)]},
    {"type": "post", "ref": 3, "channel_id": CHANNEL, "content": "c"},
    {"type": "edit", "ref": 3, "channel_id": CHANNEL, "event_id": "$a", "content": "c"},
    {"type": "redact", "ref": 3, "channel_id": CHANNEL, "event_id": "$a"},
    {"type": "react", "ref": 3, "channel_id": CHANNEL, "event_id": "$a", "emoji": "x"},
    {"type": "read", "ref": 3, "channel_id": CHANNEL},
    {"type": "typing", "ref": 3, "channel_id": CHANNEL},
    {"type": "typing", "ref": 3, "channel_id": CHANNEL, "preview": "w"},
    {"type": "hb"},
    {"type": "unknown", "ref": 4},
    {"type": "unknown"},
]
SERVER_FRAMES: list[dict[str, Any]] = [
    HELLO,
    READY,
    {"type": "sub_ok", "ref": 1, "logs": [{"log": log_name(1), "epoch": 1, "after": 0, "head": 0, "recovered": True}]},
    {"type": "ok", "ref": 2},
    {"type": "err", "ref": 2, "code": "c", "message": "m"},
    {"type": "err", "ref": 1, "code": "c", "message": "m", "log": log_name(1)},
    {"type": "ev", "log": log_name(1), "epoch": EPOCH, "seq": 1, "event": {}},
    {"type": "eph", "log": log_name(1), "kind": "typing", "data": {}},
    {"type": "gone", "log": log_name(1), "code": "deleted"},
    {"type": "lagging", "log": log_name(1), "head": 3},
    {"type": "live", "log": log_name(1)},
    {"type": "hb"},
    {"type": "auth_expiring", "expires_in_ms": 5},
    {"type": "drain", "reconnect_after_ms": 5},
    {"type": "unknown"},
    {"nothing": 1},
]
