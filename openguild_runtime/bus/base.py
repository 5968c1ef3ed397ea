"""What a bus promises, which is little: it may drop, repeat, delay or reorder. The sequence is the truth."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

REQUEST_ID = "X-Request-Id"
NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class BusHandler(Protocol):
    """What a bus tells its owner, on the loop. The probes change nothing at any replica: with them a bus finds out whether the
    wire takes messages of their kind; an empty one is not sent."""

    control_probe: bytes
    limits_probe: bytes

    def channel_message(self, channel_id: str, payload: bytes, headers: Mapping[str, str]) -> None:
        """An event that another replica stored, as its frame payload."""

    def control_message(self, payload: bytes) -> None:
        """A control message of another replica."""

    def limits_message(self, payload: bytes) -> None:
        """What another replica has admitted."""

    def bus_answered(self) -> None:
        """The server of the wire has taken what was published before: asked every second, for as long as it answers."""

    def bus_reconnected(self) -> None:
        """Something may have been missed: check every tail now."""


class Bus(ABC):
    """Publishing never blocks and never fails: what cannot be sent is dropped."""

    @property
    @abstractmethod
    def connected(self) -> bool:
        """True while messages travel."""

    @property
    def problem(self) -> str | None:
        """What keeps messages, or some of them, from travelling, for the operator; None: nothing does."""
        return None if self.connected else "cannot be reached"

    @property
    def limits_delivered(self) -> bool:
        """True while this replica's admissions reach the others and theirs reach it, as far as the wire says."""
        return self.connected

    @abstractmethod
    async def start(self, handler: BusHandler) -> None:
        """Begin; does not wait for a server that is away. `handler` hears everything from here on."""

    @abstractmethod
    async def aclose(self) -> None:
        """Let go of the connection. Idempotent."""

    @abstractmethod
    def publish_channel(self, channel_id: str, payload: bytes, headers: Mapping[str, str] = NO_HEADERS) -> None:
        """A committed event to the replicas that listen to its channel; `headers` say where it comes from."""

    @abstractmethod
    def publish_control(self, payload: bytes) -> None:
        """A control message to every replica."""

    @abstractmethod
    def publish_limits(self, payload: bytes) -> None:
        """What this replica has admitted, to every other one (policy/sharing)."""

    @abstractmethod
    async def subscribe_channel(self, channel_id: str) -> None:
        """Begin to hear a channel; safe to repeat. Returns before the server knows of it."""

    @abstractmethod
    async def unsubscribe_channel(self, channel_id: str) -> None:
        """Stop hearing a channel; safe to repeat."""
