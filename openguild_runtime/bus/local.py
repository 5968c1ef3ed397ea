"""The bus of a single replica, which has no other replicas to inform."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from openguild_proto.bus.topics import Topic
from openguild_proto.effects.process import ComponentState
from openguild_runtime.bus.base import NO_HEADERS, Bus, BusHandler


class LocalBus(Bus):
    """Does nothing: a replica delivers its own events without a bus."""

    name = "nats"
    title = "the local bus"

    @property
    def connected(self) -> bool:
        return True

    @property
    def component(self) -> ComponentState:
        return ComponentState(self.name, "pending", "off: nats.url is not configured, so this process serves alone")

    async def start(self, handler: BusHandler) -> None:
        """Do nothing."""

    def join(self, database: str) -> None:
        """Do nothing."""

    async def aclose(self) -> None:
        """Do nothing."""

    def publish_channel(self, channel_id: str, payload: bytes, headers: Mapping[str, str] = NO_HEADERS) -> None:
        """Do nothing."""

    def broadcast(self, topic: Topic, payload: bytes) -> None:
        """Do nothing."""

    def subscribe(self, channel_ids: Iterable[str]) -> None:
        """Do nothing."""

    def unsubscribe(self, channel_ids: Iterable[str]) -> None:
        """Do nothing."""
