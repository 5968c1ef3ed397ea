"""What the connection asks of the reader of its bytes, HTTP and WebSocket alike."""

from __future__ import annotations

from typing import Protocol, TypeVar

Item_co = TypeVar("Item_co", covariant=True)


class Decoder(Protocol[Item_co]):
    """Bytes cut anywhere go in, whole items come out, one at a time: the caller decides whether to go on behind each."""

    def feed(self, data: bytes) -> None:
        """Keep `data`, any piece of the byte stream; `next_item` works on it."""

    def next_item(self, now: float) -> Item_co | None:
        """The next whole item, a broken rule among them; None: more bytes are needed. `now`: monotonic seconds."""
