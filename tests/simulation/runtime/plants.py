"""Planted bugs: mistakes that were made before, which the simulation must find."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from openguild_proto.effects.channels import AppendEvent, ReadEvents
from openguild_proto.http.message import OpenStream
from openguild_proto.procedures import Procedure
from openguild_proto.records import StoredEvent
from openguild_proto.schemas.payloads import event_frame_payload, payload_sequence
from openguild_proto.ws.frames import text_frame
from openguild_runtime.net.ring_flush import PURE_SENDS
from openguild_runtime.net.transport import Transport
from tests.simulation.runtime.cluster import Replica


def publish_before_commit(replica: Replica) -> None:
    """Subscribers and NATS get an event whose transaction may still abort."""
    server, tables = replica.server, replica.cluster.database.tables

    def early(batch: Sequence[AppendEvent]) -> None:
        heads = tables.heads([effect.channel_id for effect in batch])
        for effect in batch:
            heads[effect.channel_id] += 1
            event = StoredEvent(
                effect.channel_id, heads[effect.channel_id], effect.event_id, effect.wire, effect.now_ms
            )
            server.replica.committed(event, "")

    replica.storage.early = early


def trust_nats(replica: Replica) -> None:
    """The sequencer trusts NATS to deliver everything: lost messages are never noticed."""
    core = replica.server.replica.replica

    def received(channel_id: str, payload: bytes) -> None:
        feed, sequence = core.channels.get(channel_id), payload_sequence(payload)
        if feed is not None and feed.follower.begun and sequence > feed.head:
            feed.follower.restart(sequence)
            feed.release(sequence, payload)

    core.channels.received = received  # type: ignore[method-assign]  # this is the bug


def replay_before_subscribe(replica: Replica) -> None:
    """The log is read up to its head at the request; later events fall into the gap before the subscription (PROTOCOL 8.3.1)."""
    streams, tables = replica.server.replica, replica.cluster.database.tables
    join = streams.join

    def late(transport: Transport, stream: OpenStream, changes: int) -> None:
        feed = streams.replica.channels.get(stream.channel_id or "")
        if feed is not None and stream.since is not None and stream.since < stream.head:
            for event in tables.perform(ReadEvents(log_id=feed.channel_id, after=stream.since, limit=200)) or ():
                if event.sequence <= stream.head:
                    transport.connection.outbox.append(text_frame(event_frame_payload(event)))
            stream = msgspec.structs.replace(stream, since=feed.head)
        join(transport, stream, changes)

    streams.join = late  # type: ignore[method-assign]  # this is the bug


def trust_nats_for_control(replica: Replica) -> None:
    """Removals and revocations are learned only from NATS: a lost message leaves streams open."""

    def nothing_missed() -> Procedure[None]:
        yield from ()

    controls = replica.server.replica.replica.controls
    controls.check_tail = nothing_missed  # type: ignore[method-assign]  # this is the bug


def forget_the_rest(replica: Replica) -> None:
    """A subscriber counts as flushed after one send, even if it has more."""
    rings = replica.server.replica._stream_rings
    chunk = rings.chunk

    def one_send(stream: str, max_secs: float) -> tuple[int, bool]:
        served, _ = chunk(stream, max_secs)
        return served, served < PURE_SENDS

    rings.chunk = one_send  # type: ignore[method-assign]  # this is the bug


PLANTS = {
    plant.__name__: plant
    for plant in (publish_before_commit, trust_nats, replay_before_subscribe, trust_nats_for_control, forget_the_rest)
}
