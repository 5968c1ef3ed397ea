"""A bus handler that records what it receives; a test overrides methods as needed."""

from __future__ import annotations

from collections.abc import Mapping

from openguild_proto.bus.topics import Topic


class BusRecorder:
    """Records the messages that a bus delivers, by kind."""

    def __init__(self, probe: bytes = b"") -> None:
        self._probe = probe
        self.events: list[tuple[str, bytes]] = []
        self.broadcasts: dict[Topic, list[bytes]] = {topic: [] for topic in Topic}
        self.answers = 0
        self.reconnects = 0

    def channel_message(self, channel_id: str, payload: bytes, headers: Mapping[str, str]) -> None:
        self.events.append((channel_id, payload))

    @property
    def controls(self) -> list[bytes]:
        """The messages about the control log."""
        return self.broadcasts[Topic.CONTROL]

    def probe(self, topic: Topic) -> bytes:
        return self._probe

    def broadcast_message(self, topic: Topic, payload: bytes) -> None:
        self.broadcasts[topic].append(payload)

    def bus_answered(self) -> None:
        self.answers += 1

    def bus_reconnected(self) -> None:
        self.reconnects += 1
