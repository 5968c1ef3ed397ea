"""Carries out single actions of the core's replica: flushes, messages to other replicas, replays, closings, log lines."""

from __future__ import annotations

from typing import cast

import structlog

from openguild_proto.replica.actions import (
    AnyAction,
    Broadcast,
    Close,
    ExpireAt,
    Flush,
    FlushFeed,
    Join,
    Log,
    Prepared,
    Publish,
    Query,
    Replay,
)
from openguild_proto.replica.notifications import USER_RING
from openguild_runtime.bus.base import REQUEST_ID, Bus
from openguild_runtime.net.flusher import Flusher
from openguild_runtime.net.ring_flush import GatewayRings, StreamRings
from openguild_runtime.net.transport import Transport
from openguild_runtime.observability.tracing import Tracing
from openguild_runtime.replica.stream_sockets import StreamSockets

log = structlog.get_logger("openguild.replica")


class ActionPerformer:
    """Carries out the actions of one replica."""

    def __init__(
        self,
        flusher: Flusher,
        stream_rings: StreamRings,
        gateway_rings: GatewayRings,
        bus: Bus,
        streams: StreamSockets,
        tracing: Tracing | None,
    ) -> None:
        self._flusher = flusher
        self._stream_rings = stream_rings
        self._gateway_rings = gateway_rings
        self._bus = bus
        self._streams = streams
        self._tracing = tracing

    def perform(self, action: AnyAction) -> None:
        """Carry out an action that has no answer. Never waits."""
        match action:
            case Flush(ring=ring, urgency=urgency):
                if self._tracing is not None and not ring.startswith(USER_RING):
                    self._tracing.flush_started(ring)
                self._flusher.flush(ring, urgency, self._stream_rings)
            case FlushFeed(key=key, urgency=urgency):
                self._flusher.flush(key, urgency, self._gateway_rings)
            case Publish():
                self._publish(action)
            case Broadcast(topic=topic, payload=payload):
                self._bus.broadcast(topic, payload)
            case Join(database=database):
                self._bus.join(database)
            case Close(socket=socket, code=code, reason=reason, missed=missed):
                transport = cast("Transport", socket)
                if missed is not None:
                    log.info("stream lagged", missed=missed, **transport.described)
                transport.close(code, reason)
            case ExpireAt(socket=socket, deadline=deadline, code=code, reason=reason):
                socket.expire_at(deadline, code, reason)
            case Replay(socket=socket):
                socket.replay()
            case Prepared(ticket=ticket, refusal=refusal):
                self._streams.prepared(ticket, refusal)
            case Log(level=level, message=message, fields=fields, failure=failure):
                getattr(log, level.value)(message, **fields, exc_info=failure)
            case Query():
                raise TypeError("a query has an answer")

    def _publish(self, action: Publish) -> None:
        headers = {REQUEST_ID: action.request_id} if action.request_id else {}
        if self._tracing is None:
            self._bus.publish_channel(action.channel_id, action.payload, headers)
            return
        with self._tracing.step("publish"):
            self._bus.publish_channel(action.channel_id, action.payload, headers | self._tracing.carrier())
