"""The interface of the decoders of a connection, for HTTP and for WebSocket."""

from __future__ import annotations

from typing import Protocol, TypeVar

Item_co = TypeVar("Item_co", covariant=True)


class Decoder(Protocol[Item_co]):
    """Takes bytes in pieces of any size and gives whole items, one at a time, so that the caller may stop after each."""

    def feed(self, data: bytes) -> None:
        """Buffer `data`, any piece of the byte stream."""

    def next_item(self, now: float) -> Item_co | None:
        """Return the next whole item or broken rule; None: more bytes are needed. `now`: monotonic seconds."""
