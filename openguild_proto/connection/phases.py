"""The phases of a connection and the whole machine between them, as data."""

from __future__ import annotations

from enum import Enum


class Phase(Enum):
    """What a connection speaks, and how far its end has come."""

    HTTP = "http"  # requests and answers
    WEBSOCKET = "websocket"  # upgraded: messages both ways
    CLOSING = "closing"  # our close frame is out, the peer's is awaited
    CLOSED = "closed"  # nothing is interpreted any more; the outbox may still leave


TRANSITIONS: dict[tuple[Phase, str], Phase] = {
    (Phase.HTTP, "accept"): Phase.WEBSOCKET,
    (Phase.HTTP, "end"): Phase.CLOSED,
    (Phase.WEBSOCKET, "close"): Phase.CLOSING,
    (Phase.WEBSOCKET, "end"): Phase.CLOSED,
    (Phase.CLOSING, "close"): Phase.CLOSING,
    (Phase.CLOSING, "end"): Phase.CLOSED,
    (Phase.CLOSED, "close"): Phase.CLOSED,
    (Phase.CLOSED, "end"): Phase.CLOSED,
}
"""(phase, command) -> phase. What is not here is refused."""
