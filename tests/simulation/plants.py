"""Planted bugs: mistakes that were made before, which the simulation must find."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from openguild_proto.effects import StorageEffect
from openguild_proto.effects.channels import Appended, AppendEvent, MarkRead, ReadEvents
from openguild_proto.effects.guilds import RemoveMember
from openguild_proto.gateway.feeds import Feed
from openguild_proto.gateway.following import Following
from openguild_proto.gateway.subscriptions import Subscriptions
from openguild_proto.http.message import OpenStream
from openguild_proto.policy.reactions import read_reactions, write_reactions
from openguild_proto.procedures import Procedure
from openguild_proto.records import Change, Edit, MessageState, React, StoredEvent
from openguild_proto.schemas.payloads import event_frame_payload, payload_sequence
from openguild_proto.ws.frames import text_frame
from tests.simulation.process import Process
from tests.simulation.sockets import StreamSocket


def publish_before_commit(process: Process) -> None:
    """Subscribers and the bus get an event whose transaction may still abort."""
    tables = process.database.tables

    def early(batch: Sequence[AppendEvent]) -> None:
        heads = tables.heads([effect.channel_id for effect in batch])
        for effect in batch:
            if effect.channel_id in heads:
                heads[effect.channel_id] += 1
                sequence = heads[effect.channel_id]
                process.committed(StoredEvent(effect.channel_id, sequence, effect.event_id, effect.wire, effect.now_ms))

    process.storage.early = early


def trust_nats(process: Process) -> None:
    """The sequencer trusts the bus to deliver everything: lost messages are never noticed."""
    channels = process.replica.channels

    def received(channel_id: str, payload: bytes) -> None:
        feed, sequence = channels.get(channel_id), payload_sequence(payload)
        if feed is not None and feed.follower.begun and sequence > feed.head:
            feed.follower.restart(sequence)
            feed.release(sequence, payload)

    channels.received = received  # type: ignore[method-assign]  # this is the bug


def replay_before_subscribe(process: Process) -> None:
    """The log is read up to its head at the request; later events fall into the gap before the subscription."""
    subscribe = process.subscribe

    def late(socket: StreamSocket, stream: OpenStream, changes: int) -> None:
        feed = process.replica.channels.get(stream.channel_id or "")
        if feed is not None and stream.since is not None and stream.since < stream.head:
            pages = ReadEvents(log_id=feed.channel_id, after=stream.since, limit=200)
            for event in process.database.perform(pages) or ():
                if event.sequence <= stream.head:
                    socket.outbox += text_frame(event_frame_payload(event))
            stream = msgspec.structs.replace(stream, since=feed.head)
        subscribe(socket, stream, changes)
        socket.park()

    process.subscribe = late  # type: ignore[method-assign]  # this is the bug


def trust_nats_for_control(process: Process) -> None:
    """Removals and revocations are learned only from the bus: a lost message leaves streams open."""

    def nothing_missed() -> Procedure[None]:
        yield from ()

    process.replica.controls.check_tail = nothing_missed  # type: ignore[method-assign]  # this is the bug


def forget_the_rest(process: Process) -> None:
    """A subscriber counts as flushed after one send, even if it has more."""
    flusher = process.flusher

    def one_send(ring: str) -> bool:
        if process.hub.is_open(ring):
            for subscriber in process.hub.flush_plan(ring, 1_000):
                flusher.flush_one(subscriber)
        return True

    flusher.flush_chunk = one_send  # type: ignore[method-assign]  # this is the bug


def keep_redacted_pages(process: Process) -> None:
    """Cached pages from before a redaction are served after it."""
    process.replica.streams.pages.drop_channel = lambda channel_id: None  # type: ignore[method-assign]  # this is the bug


def count_reactions_twice(process: Process) -> None:
    """A reaction is counted for each request, not for each user."""

    def count_again(message: MessageState) -> MessageState:
        uses = read_reactions(message.reactions)
        for use in uses:
            use.count += 1
        return replace(message, reactions=write_reactions(uses))

    _change_stored(process, React, count_again)


def forget_edits(process: Process) -> None:
    """An edit is in the log, but the message keeps its earlier text."""
    _change_stored(process, Edit, lambda message: replace(message, edited_text="former"))


def tell_nobody_of_removals(process: Process) -> None:
    """A member is removed without an event in the guild's log."""
    _forget_newest(process, RemoveMember, lambda effect: effect.guild_id)


def tell_no_device_of_reads(process: Process) -> None:
    """A read position moves without an event in the user's log."""
    _forget_newest(process, MarkRead, lambda effect: effect.author.user_id)


def keep_leases(process: Process) -> None:
    """Users of a dead replica stay online."""
    presence = process.replica.presence
    assert presence is not None
    presence._expire = lambda: None  # type: ignore[method-assign]  # this is the bug


def serve_sockets_once(process: Process) -> None:
    """The flush takes a gateway socket for up to date after one send."""
    feeds = process.replica.gateway.feeds
    flush = feeds.flush

    def once(key: str, limit: int, max_bytes: int, send: Any) -> tuple[int, bool, list[tuple[int, bytes]]]:
        served, _, rests = flush(key, limit, max_bytes, send)
        return served, served == limit, rests

    feeds.flush = once  # type: ignore[method-assign]  # this is the bug


def skip_what_the_ring_dropped(process: Process) -> None:
    """A gateway socket that has fallen off its ring continues at the ring's current beginning."""
    feeds = process.replica.gateway.feeds
    attach = Feed.attach

    def end_overrun(key: str) -> int:
        feed = feeds._by_key.get(key)
        lagged = feed.ring.lagged() if feed is not None else []
        for slot in lagged:
            socket = feeds._socket_at(feed, slot) if feed is not None else None
            if feed is not None and isinstance(socket, Subscriptions):
                feed.ring.detach(slot)
                socket._entries[feed] = attach(feed, feed.ring.tail - 1, socket.handle) << 3 | Following.LIVE
        return len(lagged)

    feeds.end_overrun = end_overrun  # type: ignore[method-assign]  # this is the bug


def _forget_newest(process: Process, kind: type[Any], log_of: Callable[[Any], str]) -> None:
    tables = process.database.tables
    perform = tables.perform

    def wrong(effect: StorageEffect[Any]) -> Any:
        log = tables._state.logs.get(log_of(effect), []) if isinstance(effect, kind) else []
        before = len(log)
        result = perform(effect)
        if len(log) > before:
            log.pop()
        return result

    tables.perform = wrong  # type: ignore[method-assign]  # this is the bug


def _change_stored(process: Process, kind: type[Change], changed: Callable[[MessageState], MessageState]) -> None:
    tables = process.database.tables
    perform = tables.perform

    def wrong(effect: StorageEffect[Any]) -> Any:
        result = perform(effect)
        if isinstance(effect, AppendEvent) and isinstance(effect.change, kind) and isinstance(result, Appended):
            channel = tables._state.channels[effect.channel_id]
            _, sequence = tables._state.event_places[effect.change.target]
            channel.messages[sequence] = changed(channel.messages[sequence])
        return result

    tables.perform = wrong  # type: ignore[method-assign]  # this is the bug


PLANTS = {
    plant.__name__: plant
    for plant in (
        publish_before_commit, trust_nats, replay_before_subscribe, trust_nats_for_control, forget_the_rest,
        keep_redacted_pages, count_reactions_twice, forget_edits, tell_nobody_of_removals, tell_no_device_of_reads, keep_leases,
        serve_sockets_once, skip_what_the_ring_dropped,
    )
}  # fmt: skip
