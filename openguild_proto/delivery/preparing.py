"""Builds deliveries. Peers with the same backlog get the same bytes, which are read and signed once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import chain, groupby
from typing import NamedTuple, TypeAlias

from openguild_proto.canonical.keys import EventSigner
from openguild_proto.delivery.batches import LogBatch, Prepared, assemble, cut, parts_of, place_before
from openguild_proto.delivery.recent_events import RecentEvents
from openguild_proto.effects.deliveries import ChainPoint, MoveChains
from openguild_proto.effects.logs import ReadLogs
from openguild_proto.log.chains import ChainCache, Receipt, begun_chains_at, fold, signed
from openguild_proto.procedures import Procedure, Procedures, Signal
from openguild_proto.records import LogPosition, StoredEvent

KEPT_SECS = 1.0  # a redaction in this time raises the head, so it needs another delivery
MAX_KEPT = 16
MAX_KEPT_BYTES = 65_536  # of one delivery
STORED_SECS = 1.0  # between two writes of a chain's value
STORED_STEP = 500  # events after which it is stored at once
MAX_TIPS = 1_000  # logs for which this process remembers the stored chain value

Asked: TypeAlias = tuple[tuple[LogBatch, ...], tuple[LogPosition, ...]]


class _Kept(NamedTuple):
    until: float
    prepared: Prepared


class _ChainHead(NamedTuple):
    place: LogPosition
    stored_at: float


class Preparing:
    """Builds the deliveries of a process. `signer` None: receipts are not signed."""

    def __init__(self, procedures: Procedures, signer: EventSigner | None) -> None:
        self._procedures = procedures
        self._signer = signer
        self.recent = RecentEvents()
        self._chains = ChainCache()
        self._tips: OrderedDict[str, _ChainHead] = OrderedDict()  # the newest stored position of each chain
        self._running: dict[Asked, Signal] = {}
        self._kept: OrderedDict[Asked, _Kept] = OrderedDict()

    def prepare(self, wanted: Sequence[LogBatch], ended: tuple[LogPosition, ...]) -> Procedure[Prepared]:
        """Return the delivery of these events. Raises StorageUnavailable."""
        asked = (tuple(wanted), ended)
        running = self._running.get(asked)
        if running is not None:
            yield from running.wait()
        kept = self._kept.get(asked)
        if kept is not None and kept.until > self._procedures.now:
            return kept.prepared
        mine = Signal(self._procedures)
        self._running.setdefault(asked, mine)
        try:
            prepared = yield from self._read(asked)
            self._keep(asked, prepared)
        finally:
            if self._running.get(asked) is mine:
                del self._running[asked]
            mine.set()
        return prepared

    def _keep(self, asked: Asked, prepared: Prepared) -> None:
        if len(prepared.body) > MAX_KEPT_BYTES:
            return
        self._kept.pop(asked, None)
        self._kept[asked] = _Kept(self._procedures.now + KEPT_SECS, prepared)
        while len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)

    def _read(self, asked: Asked) -> Procedure[Prepared]:
        wanted, ended = asked
        events = cut((yield from self._events(wanted)))
        receipts = yield from self._receipts(wanted, events)
        return assemble(wanted, events, receipts, ended)

    def _events(self, wanted: Sequence[LogBatch]) -> Procedure[Iterator[StoredEvent]]:
        """Return the events in the order of the logs. Reads those that are not in memory."""
        self.recent.forget(self._procedures.now)
        here = {each.log.log_id: self.recent.behind(each.log, each.size) for each in wanted if each.size}
        parts = parts_of(each for each in wanted if here.get(each.log.log_id) is None)
        read = (yield from ReadLogs(parts=parts)) if parts else ()
        if len(parts) < len(here):
            found = {log_id: tuple(of_log) for log_id, of_log in groupby(read, key=lambda event: event.log_id)}
            return chain.from_iterable(events or found.get(log_id, ()) for log_id, events in here.items())
        return iter(read)

    def _receipts(
        self, wanted: Sequence[LogBatch], events: dict[str, list[StoredEvent]]
    ) -> Procedure[dict[str, Receipt]]:
        """Return the receipts of the last events, and store new chain values."""
        before = {each.log.log_id: place_before(each.log) for each in wanted if each.log.log_id in events}
        known = {place: value for place in before.values() if (value := self._chains.get(place)) is not None}
        missing = [place for place in before.values() if place not in known]
        if missing:
            known |= yield from begun_chains_at(missing)
        receipts: dict[str, Receipt] = {}
        checkpoints: list[ChainPoint] = []
        for log_id, of_log in events.items():
            value = known.get(before[log_id])
            if value is not None:
                point = ChainPoint(before[log_id], value)
                last = fold(point, (event.event_id for event in of_log), checkpoints)
                self._chains.add(last)
                receipts[log_id] = signed(last, self._signer)
        tips = [receipt.point for receipt in receipts.values() if self._is_due(receipt.point.place)]
        if tips:
            self._procedures.start(
                _store(MoveChains(tips=tuple(tips), checkpoints=tuple(checkpoints))), "storing chains"
            )
        return receipts

    def _is_due(self, place: LogPosition) -> bool:
        """Return whether to store a chain's value now, and assume that it is stored. Busy logs are stored at intervals."""
        known, now = self._tips.get(place.log_id), self._procedures.now
        if known is not None and known.place.epoch == place.epoch:
            news = place.sequence - known.place.sequence
            if news <= 0 or (news < STORED_STEP and known.stored_at + STORED_SECS > now):
                return False
        self._tips[place.log_id] = _ChainHead(place, now)
        self._tips.move_to_end(place.log_id)
        if len(self._tips) > MAX_TIPS:
            self._tips.popitem(last=False)
        return True


def _store(effect: MoveChains) -> Procedure[None]:
    """Store chain values. If that fails, they are computed again from the last stored one."""
    yield from effect
