"""Builds snapshots for tests."""

from __future__ import annotations

from typing import Any

from openguild_proto.diagnosis.snapshot import Component, Snapshot

NOTHING: dict[str, Any] = {
    "version": "1.0", "status": "ready", "uptime_secs": 100.0, "components": [], "requests": 0, "refused": 0, "failed": 0,
    "failed_logins": 0, "cpu_secs": 0.0, "memory_bytes": 0, "descriptors": 0, "connections": 0, "streams": 0, "gateway_sockets": 0,
    "subscriptions": 0, "catching_up": 0, "stall_max_secs": 0.0, "commit_queue": 0, "pool_size": 10, "pool_idle": 10,
    "log_lines_dropped": 0, "channels": [], "readers": [], "closed": [], "users": [], "login_addresses": [], "login_accounts": [],
}  # fmt: skip


def snapshot(**changed: Any) -> Snapshot:
    return Snapshot(**NOTHING | changed)


def component(name: str, status: str, details: str = "") -> Component:
    return Component(name=name, status=status, details=details)
