"""What a bus promises, which is little: it may drop, repeat, delay or reorder. The sequence is the truth."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from types import MappingProxyType

REQUEST_ID = "X-Request-Id"
NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class Bus(ABC):
    """Callbacks are called on the loop. Publishing never blocks and never fails: what cannot be sent is dropped."""

    def __init__(self) -> None:
        self.on_channel: Callable[[str, bytes, Mapping[str, str]], None] = _ignore_channel
        """(channel id, frame payload, headers)"""
        self.on_control: Callable[[bytes], None] = _ignore_control
        self.on_limits: Callable[[bytes], None] = _ignore_limits
        self.on_answer: Callable[[], None] = _ignore_answer
        """The server of the wire has taken what was published before: asked every second, for as long as it answers."""
        self.on_reconnect: Callable[[], None] = _ignore_reconnect
        """Something may have been missed: check every tail now."""
        self.control_probe = b""
        self.limits_probe = b""
        """Messages that change nothing at any replica, to find out whether the wire takes such; empty: none is sent."""

    @property
    @abstractmethod
    def connected(self) -> bool:
        """True while messages travel."""

    @property
    def trouble(self) -> str | None:
        """What keeps messages, or some of them, from travelling, for the operator; None: nothing does."""
        return None if self.connected else "cannot be reached"

    @property
    def limits_travel(self) -> bool:
        """True while this replica's admissions reach the others and theirs reach it, as far as the wire says."""
        return self.connected

    @abstractmethod
    async def start(self) -> None:
        """Begin; does not wait for a server that is away."""

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


def _ignore_channel(channel_id: str, payload: bytes, headers: Mapping[str, str]) -> None:
    """What `on_channel` is until the application sets it."""


def _ignore_control(payload: bytes) -> None:
    """What `on_control` is until the application sets it."""


def _ignore_limits(payload: bytes) -> None:
    """What `on_limits` is until the application sets it."""


def _ignore_answer() -> None:
    """What `on_answer` is until the application sets it."""


def _ignore_reconnect() -> None:
    """What `on_reconnect` is until the application sets it."""
