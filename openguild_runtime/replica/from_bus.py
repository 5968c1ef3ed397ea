"""Feeds a replica from the bus: events and messages of other replicas, and whether the server answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext

import structlog

from openguild_proto.bus.topics import Topic
from openguild_proto.replica.replica import Replica
from openguild_runtime.bus.base import REQUEST_ID
from openguild_runtime.observability.tracing import Tracing

log = structlog.get_logger("openguild.replica")


class FromBus:
    """The `BusHandler` of a replica. `carry_out` is called after each input of the replica; `clock`: monotonic seconds."""

    def __init__(
        self, replica: Replica, clock: Callable[[], float], carry_out: Callable[[], None], tracing: Tracing | None
    ) -> None:
        self._replica = replica
        self._clock = clock
        self._carry_out = carry_out
        self._tracing = tracing

    def channel_message(self, channel_id: str, payload: bytes, headers: Mapping[str, str]) -> None:
        """Handle an event that another replica stored. The id of its request connects the log lines of both replicas."""
        log.debug("event from another replica", channel_id=channel_id, request_id=headers.get(REQUEST_ID))
        with self._tracing.continue_trace(headers) if self._tracing is not None else nullcontext():
            self._replica.heard(channel_id, payload, now=self._clock())
            self._carry_out()

    def broadcast_message(self, topic: Topic, payload: bytes) -> None:
        """Handle another replica's message to all replicas."""
        self._replica.heard_broadcast(topic, payload, now=self._clock())
        self._carry_out()

    def probe(self, topic: Topic) -> bytes:
        """Return a message that has no effect."""
        return self._replica.probe(topic)

    def bus_answered(self) -> None:
        """Note that the bus has received everything that was published before."""
        self._replica.bus_answered(now=self._clock())

    def bus_reconnected(self) -> None:
        """Note that the bus was down: the log has the events that it lost."""
        self._replica.catch_up(now=self._clock())
        self._carry_out()
