"""The deliveries of one process to the peers that mirror guilds of this server (PROTOCOL 16.8).

The call contract: set the time before each input, then take actions until there are none, and call `handle_deadline` at
`next_deadline`:

    deliveries.at(now, wall_ms)
    deliveries.grew(log_id)
    while (action := deliveries.next_action()) is not None:
        ...                                  # a Query is answered later, with `answered` or `failed`
    wait_until = deliveries.next_deadline()

Inputs: `start`, `bus_state`, `grew`, `recorded`, `hint_received`, `contacted`, `answered`, `failed`, `handle_deadline`, `drain`.
Of all processes only the holder of a peer's lease delivers to that peer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from openguild_proto.canonical.keys import EventSigner
from openguild_proto.delivery.actions import AnyAction, Level, Log, Query, SendHint
from openguild_proto.delivery.alarms import Alarms
from openguild_proto.delivery.batches import LogBatch, Prepared
from openguild_proto.delivery.cursors import CursorBatch, Cursors
from openguild_proto.delivery.peer_delivery import STORAGE_SECS, PeerDelivery
from openguild_proto.delivery.preparing import Preparing
from openguild_proto.delivery.shared import Phase
from openguild_proto.effects.base import StorageUnavailable
from openguild_proto.effects.deliveries import (
    AffectedPeers,
    CursorMove,
    FindAffectedPeers,
    FindBehind,
    FindEnded,
    FindMirroring,
    LeaveLeases,
    TakeLeases,
)
from openguild_proto.hints import AnyHint, ContactHint, GrowthHint
from openguild_proto.limits import (
    BULK_EVENTS_PER_SEC,
    BUSY_BULK_EVENTS_PER_SEC,
    MAX_ASKED_PEERS,
    MAX_LOOK_LOGS,
    MAX_WAKING_LOGS,
    PEER_LEASE_SECS,
    TAIL_CHECK_SECS,
)
from openguild_proto.policy.response_times import ResponseTimes
from openguild_proto.policy.server_slots import ServerSlots
from openguild_proto.procedures import Procedure, Procedures, Signal, Sleep
from openguild_proto.records import ControlKind, ControlRecord, LogPosition, StoredEvent

RENEW_SECS = PEER_LEASE_SECS / 3
TAKEN_AT_ONCE = 50  # leases in one round, so that processes that start together share them
ASKED_AT_ONCE = 1_000  # peers considered in one round
MORE_SECS = 0.2  # until the next round, if all of them were free
LEASES = ""  # the name of the alarm for leases, which is no server
UNLEASED_SECS = 1.0  # between two early rounds
WAKE_SECS = 0.002  # between two queries for the peers of grown logs
UNMIRRORED_SECS = 1.0  # for which a log without mirrors is not queried again
BULK_EVENTS = 50  # from this size on a delivery counts as backlog, not news
BUSY_SECS = 1.0  # for which the process counts as busy after one of its events
CONTACT_SECS = 1.0  # between two hints of contact with a peer
LOOKED_AT_ONCE = 50  # peers in one round, while the bus is down


class Deliveries:
    """All deliveries of one process. `holder`: its unique name. `jitter()`: in [0, 1). `response_times`: of the servers it asks."""

    def __init__(
        self,
        holder: str,
        signer: EventSigner | None,
        jitter: Callable[[], float],
        response_times: ResponseTimes | None = None,
    ) -> None:
        self.procedures = Procedures(self._defect)
        self.jitter = jitter
        self.wall_ms = 0
        self.peers: dict[str, PeerDelivery] = {}
        self._holder = holder
        self._actions: deque[AnyAction] = deque()
        self._alarms = Alarms()
        self._preparing = Preparing(self.procedures, signer)
        self._cursors = Cursors(self.procedures)
        self._is_ended = False
        self._lease_until = 0.0
        self._bulk_at = 0.0  # when the next large delivery may be prepared
        self._busy_until = 0.0
        self._holders = 1  # processes that deliver, as last read
        self._lease_signal: Signal | None = None
        self._hurried = 0.0  # time of the last or next early round
        self._places: ServerSlots[Signal] = ServerSlots(1, MAX_ASKED_PEERS, response_times or ResponseTimes())
        self._grown: dict[str, bool] = {}  # logs to query; value: whether to tell the other processes
        self._is_asking = False
        self._is_flooded = False  # more logs have grown than `_grown` holds
        self._unmirrored: set[str] = set()
        self._passed_over: set[str] = set()  # those of them that have grown again
        self._told: dict[str, float] = {}  # by peer: when the others were last told of its contact
        self._is_bus_up = True
        self._ended: dict[str, frozenset[str]] = {}  # by peer: guilds to purge, found while the bus is down

    # --- inputs --------------------------------------------------------------------------------------

    def at(self, now: float, wall_ms: int) -> None:
        """Set the time: monotonic seconds, and UTC milliseconds of the clock that all replicas share."""
        self.procedures.now = now
        self.wall_ms = wall_ms

    def start(self) -> None:
        """Start to take leases and to deliver."""
        self.procedures.start(self._keep_leases(), "leases of peers")
        self.procedures.start(self._ask_again(), "logs that no server mirrors")
        self.procedures.start(self._look_while_bus_is_down(), "new events that no hint announced")

    def bus_state(self, *, connected: bool) -> None:
        """Set whether the bus is connected. After a reconnect all peers are checked, because hints may be lost."""
        was, self._is_bus_up = self._is_bus_up, connected
        if connected and not was:
            self._ended.clear()
            for peer in self.peers.values():
                peer.reread()

    def grew(self, log_id: str, event: StoredEvent | None = None) -> None:
        """Handle that this process has stored an event in a log. Pass `event` to save a read of the store."""
        self._busy_until = self.procedures.now + BUSY_SECS
        if log_id in self._unmirrored:
            self._passed_over.add(log_id)
            return
        if event is not None:
            self._preparing.recent.add(event, self.procedures.now)
        self._ask({log_id: True})

    def recorded(self, record: ControlRecord) -> None:
        """Handle a control record that this process has stored. Peers are told of a deleted guild at once."""
        if record.kind is ControlKind.GUILD_DELETED and record.guild_id is not None:
            self.grew(record.guild_id)

    def hint_received(self, hint: AnyHint) -> None:
        """Handle a hint from another process."""
        match hint:
            case GrowthHint(log_ids=log_ids):
                self._ask({log_id: self._grown.get(log_id, False) for log_id in log_ids[:MAX_WAKING_LOGS]})
            case ContactHint(peer=server) if server in self.peers:
                self.peers[server].contacted()

    def contacted(self, server: str) -> None:
        """Handle a signed request of a peer to this process."""
        if server in self.peers:
            self.peers[server].contacted()
        elif server in self._told and self._told[server] + CONTACT_SECS <= self.procedures.now:
            self._told[server] = self.procedures.now
            self._actions.append(SendHint(ContactHint(server)))

    def answered(self, number: int, result: Any) -> None:
        """Handle the result of this query's effect."""
        self.procedures.answered(number, result)

    def failed(self, number: int, error: Exception) -> None:
        """Handle the exception of this query's effect."""
        self.procedures.failed(number, error)

    def handle_deadline(self) -> None:
        """Do what is due. Early calls do nothing."""
        self.procedures.handle_deadline(self.procedures.now)
        for server in self._alarms.take_due(self.procedures.now):
            if server == LEASES:
                self._wake_leases()
            elif server in self.peers:
                self.peers[server].handle_due()

    def drain(self) -> None:
        """Finish the running requests, start no others, and release the leases."""
        if not self._is_ended:
            self._is_ended = True
            self._keep_only(())
            self.procedures.start(_leave(self._holder), "leaving leases")

    # --- outputs -------------------------------------------------------------------------------------

    def next_action(self) -> AnyAction | None:
        """Return the next action, or None."""
        query = self.procedures.take_query()
        if query is not None:
            return Query(*query)
        return self._actions.popleft() if self._actions else None

    def next_deadline(self) -> float | None:
        """Return when `handle_deadline` is due, in monotonic seconds, or None."""
        times = [time for time in (self.procedures.next_deadline(), self._alarms.next()) if time is not None]
        return min(times, default=None)

    # --- leases --------------------------------------------------------------------------------------

    def _keep_leases(self) -> Procedure[None]:
        while not self._is_ended:
            secs = RENEW_SECS
            self._lease_signal = Signal(self.procedures)  # created first, so that no wake-up is missed
            try:
                if (yield from self._take_leases()):
                    secs = MORE_SECS
            except Exception as failure:  # an outage or a bug: retry in the next round
                self._not_done(failure, "taking leases of peers")
                if self._lease_until <= self.procedures.now:  # another process may deliver now
                    self._keep_only(())
            self._alarms.set(LEASES, self.procedures.now + secs * (0.5 + 0.5 * self.jitter()))
            yield from self._lease_signal.wait()

    def _wake_leases(self) -> None:
        if self._lease_signal is not None:
            self._lease_signal.set()

    def _take_leases(self) -> Procedure[bool]:
        """Renew leases and take more. Return whether there may be more to take."""
        mirroring = yield from FindMirroring()
        self._told = {server: self._told.get(server, 0.0) for server in mirroring if server not in self.peers}
        others = [server for server in mirroring if server not in self.peers]
        start = int(self.jitter() * len(others))
        if not mirroring:
            self._keep_only(())
            return False
        at_most = min(TAKEN_AT_ONCE, self._share(mirroring) - len(self.peers))
        until, until_ms = self.procedures.now + PEER_LEASE_SECS, self.wall_ms + int(PEER_LEASE_SECS * 1_000)
        leases = yield from TakeLeases(
            peers=tuple(server for server in mirroring if server in self.peers),
            holder=self._holder,
            now_ms=self.wall_ms,
            until_ms=until_ms,
            others=tuple((others[start:] + others[:start])[:ASKED_AT_ONCE]),
            at_most=max(0, at_most),
        )
        if self._is_ended:
            return False
        self._lease_until, self._holders = until, leases.holders
        self._keep_only(leases.peers)
        taken = [server for server in leases.peers if server not in self.peers]
        for server in taken:
            peer = self.peers[server] = PeerDelivery(server, self)
            self.procedures.start(peer.run(), f"delivery to {server}")
        yield from self._leave_some(len(self.peers) - self._share(mirroring))
        return len(taken) == TAKEN_AT_ONCE

    def _share(self, mirroring: Sequence[str]) -> int:
        """Return this process's fair share of the peers."""
        return -(-len(mirroring) // self._holders)

    def _leave_some(self, count: int) -> Procedure[None]:
        """Release peers for a process that has fewer. Raises StorageUnavailable."""
        if count > 0:
            left = tuple(self.peers)[-count:]
            self._keep_only(tuple(self.peers)[:-count])
            self._told |= dict.fromkeys(left, 0.0)
            yield from LeaveLeases(holder=self._holder, peers=left)

    def _keep_only(self, held: Sequence[str]) -> None:
        for server in self.peers.keys() - set(held):
            self.peers.pop(server).end()
            self._alarms.clear(server)

    # --- growth --------------------------------------------------------------------------------------

    def _ask(self, grown: dict[str, bool]) -> None:
        if len(self._grown) < MAX_WAKING_LOGS:
            self._grown.update(grown)
        else:
            self._is_flooded = True
        if not self._is_asking:
            self._is_asking = True
            self.procedures.start(self._wake(), "waking peers", self._woke)

    def _woke(self, _: object, error: Exception | None) -> None:
        self._is_asking = False
        if error is not None:
            self._defect("waking peers", error)

    def _wake(self) -> Procedure[None]:
        while self._grown:
            asked, self._grown = self._grown, {}
            try:
                woken = yield from FindAffectedPeers(log_ids=tuple(asked), holder=self._holder)
            except StorageUnavailable:
                self._grown = {**asked, **self._grown}
                yield from Sleep(STORAGE_SECS).wait()
                continue
            self._hear(woken, asked)
            if self._is_flooded:
                self._is_flooded = False
                for peer in self.peers.values():
                    peer.reread()
            yield from Sleep(WAKE_SECS).wait()

    def _hear(self, woken: AffectedPeers, asked: dict[str, bool]) -> None:
        self._unmirrored.update(asked.keys() - set(woken.mirrored))
        if woken.free and self._hurried <= self.procedures.now:  # a peer has just begun to mirror
            self._hurried = max(self.procedures.now, self._hurried + UNLEASED_SECS)
            self.procedures.start(self._hurry(), "leases out of turn")
        told = tuple(log_id for log_id in woken.mirrored if asked[log_id])
        if woken.elsewhere and told:
            self._actions.append(SendHint(GrowthHint(told)))
        for server, log in woken.behind:
            if server in self.peers:
                self.peers[server].log_grew(log)
        for server in woken.ended:
            if server in self.peers:
                self.peers[server].reread()

    def _hurry(self) -> Procedure[None]:
        yield from Sleep(max(0.0, self._hurried - self.procedures.now)).wait()
        self._wake_leases()

    def _ask_again(self) -> Procedure[None]:
        """Query unmirrored logs that have grown again, so that a new mirror is noticed within `UNMIRRORED_SECS`."""
        while not self._is_ended:
            yield from Sleep(UNMIRRORED_SECS).wait()
            passed_over, self._passed_over = self._passed_over, set()
            self._unmirrored.clear()
            if passed_over:
                self._ask(dict.fromkeys(passed_over, True))

    def _look_while_bus_is_down(self) -> Procedure[None]:
        """Find events of other processes as fast as tail checks do, for some peers at a time."""
        turns: deque[str] = deque()
        while not self._is_ended:
            yield from Sleep(TAIL_CHECK_SECS / 2 * (0.75 + 0.5 * self.jitter())).wait()
            if self._is_bus_up:
                continue
            turns = turns or deque(self.peers)
            try:
                for server in [turns.popleft() for _ in range(min(len(turns), LOOKED_AT_ONCE))]:
                    yield from self._find_growth(server)
            except Exception as failure:  # as above
                self._not_done(failure, "finding logs with new events")

    def _find_growth(self, server: str) -> Procedure[None]:
        """Wake the delivery for a peer's backlog and for guilds that it must purge. Raises StorageUnavailable."""
        if server in self.peers and self.peers[server].phase is not Phase.BACKING_OFF:
            behind = yield from FindBehind(peer=server, limit=MAX_LOOK_LOGS)
            ended = frozenset(place.log_id for place in (yield from FindEnded(peer=server)))
            if server in self.peers:
                for log in behind:
                    self.peers[server].log_grew(log)
                if ended - self._ended.get(server, frozenset()):
                    self.peers[server].reread()
                self._ended[server] = ended

    # --- for the deliveries --------------------------------------------------------------------------

    def prepare(self, wanted: Sequence[LogBatch], ended: tuple[LogPosition, ...]) -> Procedure[Prepared]:
        """Read the events and build the delivery. Raises StorageUnavailable."""
        return (yield from self._preparing.prepare(wanted, ended))

    def move_cursors(self, moves: Sequence[CursorMove]) -> CursorBatch:
        """Store a peer's new positions soon."""
        return self._cursors.move(moves)

    def take_place(self, server: str) -> Procedure[None]:
        """Wait for a free slot for a request."""
        if not self._places.take(server, self.procedures.now):
            mine = Signal(self.procedures)
            self._places.wait(server, mine)
            yield from mine.wait()

    def pace(self, events: int) -> Procedure[None]:
        """Wait before a large delivery. All large ones of this process together are limited, to leave capacity for its users."""
        if events < BULK_EVENTS:
            return
        is_busy = self.procedures.now < self._busy_until
        at = max(self.procedures.now, self._bulk_at)
        self._bulk_at = at + events / (BUSY_BULK_EVENTS_PER_SEC if is_busy else BULK_EVENTS_PER_SEC)
        if at > self.procedures.now:
            yield from Sleep(at - self.procedures.now).wait()

    def leave_place(self, server: str) -> None:
        """Release a slot, and wake the longest waiting peers that may use it."""
        for waiting in self._places.leave(server, self.procedures.now):
            waiting.set()

    def due_changed(self, server: str, due: float) -> None:
        """Wake the delivery to that server at `due`."""
        self._alarms.set(server, due)

    def log(self, level: Level, message: str, failure: Exception | None = None, **fields: Any) -> None:
        """Log a line for the operator."""
        self._actions.append(Log(level, message, fields, failure))

    def _not_done(self, failure: Exception, what: str) -> None:
        if not isinstance(failure, StorageUnavailable):  # outages are logged by the code that performs the effect
            self._defect(what, failure)

    def _defect(self, what: str, failure: Exception) -> None:
        self.log(Level.ERROR, f"{what}: failed", failure)


def _leave(holder: str) -> Procedure[None]:
    yield from LeaveLeases(holder=holder)
