"""The bus of a process that serves alone: there is nobody to tell."""

from __future__ import annotations

from collections.abc import Mapping

from openguild_runtime.bus.base import NO_HEADERS, Bus, BusHandler


class LocalBus(Bus):
    """A replica's own events never need a bus, so publishing does nothing."""

    @property
    def connected(self) -> bool:
        return True

    async def start(self, handler: BusHandler) -> None:
        """There is nothing to hear."""

    async def aclose(self) -> None:
        """Nothing to let go of."""

    def publish_channel(self, channel_id: str, payload: bytes, headers: Mapping[str, str] = NO_HEADERS) -> None:
        """Nobody listens."""

    def publish_control(self, payload: bytes) -> None:
        """Nobody listens."""

    def publish_limits(self, payload: bytes) -> None:
        """Nobody listens."""

    async def subscribe_channel(self, channel_id: str) -> None:
        """Everything is heard already."""

    async def unsubscribe_channel(self, channel_id: str) -> None:
        """There is nothing to stop."""
