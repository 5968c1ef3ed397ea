"""Computes values of receipt chains from stored values and the ids of events (PROTOCOL 16.9).

A value is computed when it is needed, from the last stored value before it. Nothing is computed when an event is stored.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from openguild_proto.canonical.keys import EventSigner, encode_unpadded
from openguild_proto.canonical.receipts import first_link, next_link, sign_receipt
from openguild_proto.effects.base import Operation
from openguild_proto.effects.deliveries import BeginChains, ChainPoint, MoveChains, ReadChains, ReadEventIds
from openguild_proto.limits import CHAIN_STEP
from openguild_proto.mirror_records import Snapshot
from openguild_proto.records import LogPosition, Record

READ_IDS = 1_000  # per query
MAX_CACHED_LOGS = 1_000
CACHED_VALUES = 4  # per log, because some peers are behind others


class Receipt(Record, frozen=True):
    """The value of a chain at a place, and the owner's signature over it. `signature` None: the owner has no key."""

    point: ChainPoint
    signature: bytes | None

    @property
    def text(self) -> str | None:
        """The signature as it is sent."""
        return encode_unpadded(self.signature) if self.signature is not None else None


class ChainCache:
    """The newest values of the most used chains, so that live delivery need not read them."""

    def __init__(self, max_logs: int = MAX_CACHED_LOGS) -> None:
        self._max_logs = max_logs
        self._values: dict[str, dict[LogPosition, bytes]] = {}  # by log, most recently used last

    def get(self, place: LogPosition) -> bytes | None:
        """Return the value at `place` if it is cached, else None."""
        values = self._values.pop(place.log_id, None)
        if values is None:
            return None
        self._values[place.log_id] = values
        return values.get(place)

    def add(self, point: ChainPoint) -> None:
        """Cache a value, and drop the oldest one of its log or of all logs."""
        values = self._values.pop(point.place.log_id, {})
        self._values[point.place.log_id] = values
        values[point.place] = point.hash
        if len(values) > CACHED_VALUES:
            del values[next(iter(values))]
        if len(self._values) > self._max_logs:
            del self._values[next(iter(self._values))]


def fold(point: ChainPoint, event_ids: Iterable[str], passed: list[ChainPoint]) -> ChainPoint:
    """Return the value after these events, which follow `point`. Append the values to store to `passed`."""
    place, chain = point.place, point.hash
    sequence = place.sequence
    for sequence, event_id in enumerate(event_ids, start=place.sequence + 1):
        chain = next_link(chain, place.log_id, place.epoch, sequence, event_id)
        if sequence % CHAIN_STEP == 0:
            passed.append(ChainPoint(LogPosition(place.log_id, place.epoch, sequence), chain))
    return ChainPoint(LogPosition(place.log_id, place.epoch, sequence), chain)


def chains_at(places: Sequence[LogPosition]) -> Operation[dict[LogPosition, bytes]]:
    """Return the values at these positions, at most one per log.

    Places before the beginning of their chain, or that the log does not have, are omitted.
    """
    found: dict[LogPosition, bytes] = {}
    if not places:
        return found
    passed: list[ChainPoint] = []
    wanted = {place.log_id: place for place in places}
    parts = yield from ReadChains(places=tuple(wanted.values()), limit=READ_IDS)
    for part in parts:
        place = wanted[part.point.place.log_id]
        point = fold(part.point, part.event_ids, passed)
        while point.place.sequence < place.sequence:
            size = min(READ_IDS, place.sequence - point.place.sequence)
            ids = yield from ReadEventIds(log_id=place.log_id, after=point.place.sequence, limit=size)
            if not ids:
                break
            point = fold(point, ids, passed)
        if point.place == place:
            found[place] = point.hash
    if passed:
        yield from MoveChains(tips=(), checkpoints=tuple(passed))
    return found


def begun_chains_at(places: Sequence[LogPosition]) -> Operation[dict[LogPosition, bytes]]:
    """Return the values at these positions, at most one per log. Chains that do not exist begin there."""
    found = yield from chains_at(places)
    missing = [place for place in places if place not in found]
    if missing:
        begins = [
            ChainPoint(place, first_link(place.log_id, place.epoch, place.sequence)) for place in missing
        ]  # if another process has begun one meanwhile, that one is used
        yield from BeginChains(points=tuple(begins))
        found |= yield from chains_at(missing)
    return found


def receipt_at(place: LogPosition, signer: EventSigner | None) -> Operation[Receipt | None]:
    """Return the receipt of a log's event. None: its chain begins later, or the log has no such event."""
    found = yield from begun_chains_at((place,))
    value = found.get(place)
    return None if value is None else signed(ChainPoint(place, value), signer)


def signed(point: ChainPoint, signer: EventSigner | None) -> Receipt:
    """Return the receipt of a value."""
    place = point.place
    if signer is None:
        return Receipt(point, None)
    return Receipt(point, sign_receipt(signer, point.hash, place.log_id, place.epoch, place.sequence))


def with_chains(snapshot: Snapshot) -> Operation[Snapshot]:
    """Return the snapshot with the receipt chains at its heads. Chains that do not exist begin there."""
    of_guild = LogPosition(snapshot.guild_id, snapshot.epoch, snapshot.sequence)
    of_channels = [LogPosition(each.channel_id, each.epoch, each.sequence) for each in snapshot.channels]
    found = yield from begun_chains_at((of_guild, *of_channels))
    texts = {place: encode_unpadded(value) for place, value in found.items()}
    channels = [
        replace(each, chain=texts.get(place)) for each, place in zip(snapshot.channels, of_channels, strict=True)
    ]
    return replace(snapshot, channels=channels, chain=texts.get(of_guild))
