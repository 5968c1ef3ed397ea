"""Selects the events of one delivery and builds its body (PROTOCOL 16.8).

A guild's own log goes first. Events of its channels follow once the peer has the guild's log up to the head at which they were
found, so that a mirror never shows them to a user who has lost the right to read them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

import msgspec

from openguild_proto.canonical.keys import encode_unpadded
from openguild_proto.effects.deliveries import BehindLog
from openguild_proto.limits import MAX_DELIVERED_BYTES, MAX_DELIVERED_EVENTS, MAX_DELIVERED_LOGS
from openguild_proto.log.chains import Receipt
from openguild_proto.records import LogPart, LogPosition, Record, StoredEvent
from openguild_proto.schemas.between_servers import DeliveredEvent, Delivery, EndedGuild, LogDelivery

FAIR_EVENTS = 50  # of a log, before the other logs have had their turn
GUESSED_BYTES = 600  # of an event, until some were measured


class LogBatch(Record, frozen=True):
    """The first `size` events of a log that a peer lacks. 0: only report the epoch and the head."""

    log: BehindLog
    size: int


class Sent(Record, frozen=True):
    """The part of a log in a delivery, up to the sequence `last`. Without events `last` is `log.after`."""

    log: BehindLog
    last: int


class Prepared(Record, frozen=True):
    """A delivery ready to send. `gone`: logs whose events no longer exist."""

    body: bytes
    sent: tuple[Sent, ...]
    gone: tuple[str, ...]
    nbytes: int  # of its events

    @property
    def events(self) -> int:
        """The number of events."""
        return sum(part.last - part.log.after for part in self.sent)


def choose(logs: Iterable[BehindLog], max_events: int = MAX_DELIVERED_EVENTS) -> tuple[LogBatch, ...]:
    """Return the parts of logs for the next delivery. `logs`: all logs with a backlog, in the order of their turns."""
    logs = list(logs)
    guilds = {log.guild_id: log for log in logs if log.is_guild}
    sizes: dict[str, int] = {}
    left = max_events
    for fair in (FAIR_EVENTS, max_events):
        for log in sorted(logs, key=lambda log: not log.is_guild):
            known = log.log_id in sizes
            if not known and (len(sizes) == MAX_DELIVERED_LOGS or not _is_free(log, guilds, sizes)):
                continue
            size = min(_missing(log), fair, sizes.get(log.log_id, 0) + left)
            if known or size or not _missing(log):
                left -= size - sizes.get(log.log_id, 0)
                sizes[log.log_id] = size
    return tuple(LogBatch(log, sizes[log.log_id]) for log in logs if log.is_guild and log.log_id in sizes) + tuple(
        LogBatch(log, sizes[log.log_id]) for log in logs if not log.is_guild and log.log_id in sizes
    )


def _missing(log: BehindLog) -> int:
    return max(0, log.head.sequence - log.after) if log.epoch == log.head.epoch else 0


def _is_free(log: BehindLog, guilds: Mapping[str, BehindLog], sizes: Mapping[str, int]) -> bool:
    """Return whether the peer has the guild's log, at the latest with this delivery."""
    guild = guilds.get(log.guild_id)
    if log.is_guild or guild is None:
        return True
    return guild.epoch == guild.head.epoch and sizes.get(guild.log_id) == _missing(guild)


def parts_of(wanted: Iterable[LogBatch]) -> tuple[LogPart, ...]:
    """Return the parts of logs to read for the delivery."""
    return tuple(LogPart(each.log.log_id, each.log.after, each.size) for each in wanted if each.size)


def cut(events: Iterable[StoredEvent], max_bytes: int = MAX_DELIVERED_BYTES) -> dict[str, list[StoredEvent]]:
    """Return the events by log, as many as fit in `max_bytes`, and at least one."""
    taken: dict[str, list[StoredEvent]] = {}
    left = max_bytes
    for log_id, of_log in groupby(events, key=lambda event: event.log_id):
        for event in of_log:
            left -= weight(event.wire)
            if left < 0 and taken:
                return taken
            taken.setdefault(log_id, []).append(event)
    return taken


def weight(wire: bytes) -> int:
    """Return the size of an event as a JSON string, in bytes."""
    return len(wire) + wire.count(b'"') + wire.count(b"\\")


def assemble(
    wanted: Sequence[LogBatch],
    events: Mapping[str, Sequence[StoredEvent]],
    receipts: Mapping[str, Receipt],
    ended: Sequence[LogPosition],
) -> Prepared:
    """Return the delivery. `receipts`: of the last event of each log, by log, if the log has one.

    A log that fits but returned no events is gone. A log that does not fit waits.
    """
    logs: list[LogDelivery] = []
    sent: list[Sent] = []
    gone: list[str] = []
    is_full = False
    for each in wanted:
        found = events.get(each.log.log_id, ())
        if each.size and not found:
            if not is_full:
                gone.append(each.log.log_id)
            continue
        is_full = is_full or len(found) < each.size
        receipt = receipts.get(each.log.log_id)
        sent.append(Sent(each.log, found[-1].sequence if found else each.log.after))
        logs.append(_delivery(each.log, found, receipt))
    nbytes = sum(weight(event.wire) for of_log in events.values() for event in of_log)
    purged = [EndedGuild(place.log_id, place.epoch, place.sequence) for place in ended]
    return Prepared(msgspec.json.encode(Delivery(logs, purged)), tuple(sent), tuple(gone), nbytes)


def _delivery(log: BehindLog, events: Sequence[StoredEvent], receipt: Receipt | None) -> LogDelivery:
    return LogDelivery(
        log.log_id,
        log.guild_id,
        log.head.epoch,
        log.after if log.epoch == log.head.epoch else log.head.sequence,
        [DeliveredEvent(event.wire.decode(), event.created_at_ms) for event in events],
        encode_unpadded(receipt.point.hash) if receipt is not None else None,
        receipt.text if receipt is not None else None,
    )


def place_before(log: BehindLog) -> LogPosition:
    """Return the position after which the peer lacks events."""
    return LogPosition(log.log_id, log.head.epoch, log.after)
