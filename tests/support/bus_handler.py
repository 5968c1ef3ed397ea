"""A bus handler that records what it receives; a test overrides methods as needed."""

from __future__ import annotations

from collections.abc import Mapping


class BusRecorder:
    """Records what a bus delivers, by kind."""

    def __init__(self, probe: bytes = b"") -> None:
        self.control_probe = self.limits_probe = probe
        self.events: list[tuple[str, bytes]] = []
        self.controls: list[bytes] = []
        self.limits: list[bytes] = []
        self.answers = 0
        self.reconnects = 0

    def channel_message(self, channel_id: str, payload: bytes, headers: Mapping[str, str]) -> None:
        self.events.append((channel_id, payload))

    def control_message(self, payload: bytes) -> None:
        self.controls.append(payload)

    def limits_message(self, payload: bytes) -> None:
        self.limits.append(payload)

    def bus_answered(self) -> None:
        self.answers += 1

    def bus_reconnected(self) -> None:
        self.reconnects += 1
