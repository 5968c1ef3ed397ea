"""The interface of a bus. A bus may drop, repeat, delay or reorder messages; receivers rely on sequence numbers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Protocol

from openguild_proto.bus.topics import Topic
from openguild_proto.effects.process import ComponentState
from openguild_proto.operations.readiness import describe_bus

REQUEST_ID = "X-Request-Id"
NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class BusHandler(Protocol):
    """Receives what a bus delivers, on the event loop.

    A bus publishes probes to find out whether messages of their topic are permitted. Receivers ignore them.
    """

    def probe(self, topic: Topic) -> bytes:
        """Return a message without effect, or b"" if this replica does not use the topic."""

    def channel_message(self, channel_id: str, payload: bytes, headers: Mapping[str, str]) -> None:
        """Handle an event that another replica stored. `payload` is its frame payload."""

    def broadcast_message(self, topic: Topic, payload: bytes) -> None:
        """Handle a message of another replica to all replicas."""

    def bus_answered(self) -> None:
        """Note that the NATS server has received what was published so far. Called about once a second while it answers."""

    def bus_reconnected(self) -> None:
        """Check every tail: messages may have been lost."""


class Bus(ABC):
    """Carries messages between replicas. Publishing never blocks or raises: a message that cannot be sent is dropped."""

    name = "bus"  # of the component in `/ready`
    title = "the bus"  # in texts for operators

    @property
    @abstractmethod
    def connected(self) -> bool:
        """Whether the bus is connected."""

    @property
    def problem(self) -> str | None:
        """Why some or all messages are not delivered, for the operator; None if all are."""
        return None if self.connected else "cannot be reached"

    @property
    def component(self) -> ComponentState:
        """The component of `/ready`."""
        return describe_bus(self.name, self.title, self.problem)

    @property
    def limits_delivered(self) -> bool:
        """Whether messages about limits reach the other replicas, as far as the bus can tell."""
        return self.connected

    @abstractmethod
    async def start(self, handler: BusHandler) -> None:
        """Start to connect, without waiting for the server or the first `join`, and deliver to `handler` from now on."""

    @abstractmethod
    def join(self, database: str) -> None:
        """Exchange messages with the replicas of this database, and no longer with those of another one."""

    @abstractmethod
    async def aclose(self) -> None:
        """Close the connection. Idempotent."""

    @abstractmethod
    def publish_channel(self, channel_id: str, payload: bytes, headers: Mapping[str, str] = NO_HEADERS) -> None:
        """Send a committed event to the replicas that subscribe to its channel. `headers` has request ID and trace context."""

    @abstractmethod
    def broadcast(self, topic: Topic, payload: bytes) -> None:
        """Send a message to every other replica."""

    @abstractmethod
    def subscribe(self, channel_ids: Iterable[str]) -> None:
        """Subscribe to these channels. Idempotent. Returns before the server has the subscriptions."""

    @abstractmethod
    def unsubscribe(self, channel_ids: Iterable[str]) -> None:
        """Unsubscribe from these channels. Idempotent."""
