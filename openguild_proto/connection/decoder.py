"""The interface of the decoders of a connection, for HTTP and for WebSocket."""

from __future__ import annotations

from typing import Protocol, TypeVar

Item_co = TypeVar("Item_co", covariant=True)


class Decoder(Protocol[Item_co]):
    """Accepts bytes in pieces of any size and returns complete items one at a time, so that the caller can stop after each."""

    def feed(self, data: bytes) -> None:
        """Buffer `data`, a piece of the byte stream of any size."""

    def next_item(self, now: float) -> Item_co | None:
        """Return the next complete item or broken rule, or None if more bytes are needed. `now`: monotonic seconds."""
