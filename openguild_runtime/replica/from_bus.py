"""Passes messages of other replicas and the state of the bus to the replica."""

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
    """The `BusHandler` of a replica. `perform_actions` is called after each input; `clock` returns monotonic seconds."""

    def __init__(
        self, replica: Replica, clock: Callable[[], float], perform_actions: Callable[[], None], tracing: Tracing | None
    ) -> None:
        self._replica = replica
        self._clock = clock
        self._perform_actions = perform_actions
        self._tracing = tracing

    def channel_message(self, channel_id: str, payload: bytes, headers: Mapping[str, str]) -> None:
        """Handle an event that another replica stored; its request's ID is the same in the logs of both."""
        log.debug("event from another replica", channel_id=channel_id, request_id=headers.get(REQUEST_ID))
        with self._tracing.continue_trace(headers) if self._tracing is not None else nullcontext():
            self._replica.channel_message(channel_id, payload, now=self._clock())
            self._perform_actions()

    def broadcast_message(self, topic: Topic, payload: bytes) -> None:
        """Handle a message of another replica to all replicas."""
        self._replica.broadcast_message(topic, payload, now=self._clock())
        self._perform_actions()

    def probe(self, topic: Topic) -> bytes:
        """Return a message that has no effect."""
        return self._replica.probe(topic)

    def bus_answered(self) -> None:
        """Note that the bus has received everything published before."""
        self._replica.bus_answered(now=self._clock())

    def bus_reconnected(self) -> None:
        """Catch up from the log on messages that were lost while the bus was down."""
        self._replica.catch_up(now=self._clock())
        self._perform_actions()
