"""A NATS that drops, repeats, delays and reorders messages, and whose links can be cut."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from random import Random

from openguild_proto.bus.topics import Topic
from openguild_runtime.bus.base import NO_HEADERS, Bus, BusHandler
from tests.simulation.runtime.loop import SimLoop


class SimNats:
    """Shares of messages that are dropped (control messages separately), repeated, and delayed so long that others overtake."""

    def __init__(
        self, loop: SimLoop, rng: Random, *, drop: float, drop_control: float, repeat: float, delay: float
    ) -> None:
        self.loop = loop
        self.rng = rng
        self.drop = drop
        self.drop_control = drop_control
        self.repeat = repeat
        self.late = delay
        self.buses: list[SimBus] = []

    def latency(self) -> float:
        if self.rng.random() < self.late:
            return self.rng.uniform(0.05, 3.0)
        return self.rng.choice((0.0005, 0.001, 0.005))

    def publish(self, sender: SimBus, drop: float, deliver: Callable[[SimBus], None]) -> None:
        for bus in self.buses:
            if bus is sender or self.rng.random() < drop:
                continue
            for _ in range(2 if self.rng.random() < self.repeat else 1):
                self.loop.call_later(self.latency(), deliver, bus)


class SimBus(Bus):
    """One replica's connection."""

    def __init__(self, nats: SimNats) -> None:
        super().__init__()
        self._nats = nats
        self._handler: BusHandler
        self._subscribed: set[str] = set()
        self._up = True

    @property
    def connected(self) -> bool:
        return self._up

    async def start(self, handler: BusHandler) -> None:
        self._handler = handler
        self._nats.buses.append(self)

    def join(self, database: str) -> None:
        """Do nothing: there is one database, and it is never replaced."""

    async def aclose(self) -> None:
        self.die()

    def die(self) -> None:
        self._up = False
        if self in self._nats.buses:
            self._nats.buses.remove(self)

    def cut(self, secs: float) -> None:
        """Cut the link for a while; messages sent meanwhile are lost."""
        if self._up:
            self._up = False
            self._nats.loop.call_later(secs, self._heal)

    def _heal(self) -> None:
        if self in self._nats.buses:
            self._up = True
            self._handler.bus_reconnected()

    def publish_channel(self, channel_id: str, payload: bytes, headers: Mapping[str, str] = NO_HEADERS) -> None:
        if self._up:
            self._nats.publish(self, self._nats.drop, lambda bus: bus.bring(channel_id, payload))

    def broadcast(self, topic: Topic, payload: bytes) -> None:
        if self._up:
            self._nats.publish(self, self._nats.drop_control, lambda bus: bus.bring(topic, payload))

    def bring(self, channel_id: str | Topic, payload: bytes) -> None:
        if not self._up:
            return
        if isinstance(channel_id, Topic):
            self._handler.broadcast_message(channel_id, payload)
        elif channel_id in self._subscribed:
            self._handler.channel_message(channel_id, payload, NO_HEADERS)

    def subscribe(self, channel_ids: Iterable[str]) -> None:
        """Subscribe. Returns before the server knows of it, as the real client does."""
        for channel_id in channel_ids:
            self._nats.loop.call_later(self._nats.latency(), self._subscribed.add, channel_id)

    def unsubscribe(self, channel_ids: Iterable[str]) -> None:
        self._subscribed.difference_update(channel_ids)
