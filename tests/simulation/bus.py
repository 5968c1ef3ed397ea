"""The bus between the replicas: it drops, repeats, delays and reorders messages, and its links can be cut."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Protocol

from openguild_proto.bus.topics import Topic
from tests.simulation.clock import Clock

LATENCY_SECS = (0.0005, 0.001, 0.005)
LATE_SECS = 3.0  # an overtaken message is at most this late


class Listener(Protocol):
    """The process at the end of a link."""

    def delivered(self, channel_id: str | Topic, payload: bytes) -> None:
        """Handle a message about a channel, or one of a topic for all replicas."""

    def bus_back(self) -> None:
        """Handle the return of the link: messages that it lost are in the log."""


class Bus:
    """Shares of messages that are dropped (control messages separately), repeated, and delayed so long that others overtake."""

    def __init__(self, clock: Clock, rng: Random) -> None:
        self.clock = clock
        self.rng = rng
        self.drop = self.drop_control = self.repeat = self.late = 0.0
        self.links: list[Link] = []
        self.lost = 0  # how often all messages in flight were lost

    def latency(self) -> float:
        random = self.rng.random
        if random() < self.late:
            return LATE_SECS * random()
        return LATENCY_SECS[int(random() * len(LATENCY_SECS))]

    def publish(self, sender: Link, channel_id: str | Topic, payload: bytes) -> None:
        drop = self.drop_control if isinstance(channel_id, Topic) else self.drop
        for link in self.links:
            if link is sender or self.rng.random() < drop:
                continue
            for _ in range(2 if self.rng.random() < self.repeat else 1):
                self.clock.later(self.latency(), link.bring, sender.database, channel_id, payload, self.lost)


class Link:
    """One process's connection to the bus."""

    def __init__(self, bus: Bus, listener: Listener) -> None:
        self.is_up = True
        self.database: str | None = None  # the database whose replicas it talks to
        self.subscribed: set[str] = set()
        self._bus = bus
        self._listener = listener
        self._cuts = 0
        self._wanted: dict[str, int] = {}  # channel -> number of the subscription, which reaches the bus later
        self._last = 0
        bus.links.append(self)

    def end(self) -> None:
        """End the link: the process is gone."""
        self.is_up = False
        if self in self._bus.links:
            self._bus.links.remove(self)

    def cut(self, secs: float) -> None:
        """Cut the link for a while; messages sent meanwhile are lost."""
        if self in self._bus.links:
            self.is_up = False
            self._cuts += 1
            self._bus.clock.later(secs, self._heal, self._cuts)

    def _heal(self, cut: int) -> None:
        if cut == self._cuts and self in self._bus.links:
            self.is_up = True
            self._listener.bus_back()

    def join(self, database: str) -> None:
        """Switch to the replicas of another database, whose log has the messages from before."""
        moved, self.database = self.database is not None, database
        if moved and self.is_up:
            self._listener.bus_back()

    def publish(self, channel_id: str | Topic, payload: bytes) -> None:
        """Publish a message about a channel, or one of a topic for all replicas."""
        if self.is_up and self.database is not None:
            self._bus.publish(self, channel_id, payload)

    def bring(self, database: str, channel_id: str | Topic, payload: bytes, lost: int) -> None:
        if not self.is_up or database != self.database or lost != self._bus.lost:
            return
        if isinstance(channel_id, Topic) or channel_id in self.subscribed:
            self._listener.delivered(channel_id, payload)

    def subscribe(self, channel_ids: tuple[str, ...], done: Callable[[], None]) -> None:
        """Subscribe. `done` is called before the bus knows of it, as with real NATS."""
        for channel_id in channel_ids:
            self._last += 1
            self._wanted[channel_id] = self._last
            self._bus.clock.later(self._bus.latency(), self._add, channel_id, self._last)
        self._bus.clock.later(0.0, done)

    def _add(self, channel_id: str, number: int) -> None:
        if self._wanted.get(channel_id) == number:
            self.subscribed.add(channel_id)

    def unsubscribe(self, channel_ids: tuple[str, ...], done: Callable[[], None]) -> None:
        for channel_id in channel_ids:
            self._wanted.pop(channel_id, None)
            self.subscribed.discard(channel_id)
        self._bus.clock.later(0.0, done)
