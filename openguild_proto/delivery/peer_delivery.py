"""The delivery to one peer: its backlog, one request at a time, and the meaning of its responses (PROTOCOL 16.8).

A peer's responses say what it has. Its backlog is read from the store at the start and every `PEER_HEADS_SECS`, and updated when
logs grow. For an unreachable peer only the size of the backlog is kept.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from openguild_proto.delivery.actions import Level
from openguild_proto.delivery.batches import GUESSED_BYTES, LogBatch, Prepared, Sent, choose
from openguild_proto.delivery.cursors import CursorBatch
from openguild_proto.delivery.shared import Counters, Host, Phase
from openguild_proto.effects.base import StorageUnavailable
from openguild_proto.effects.deliveries import BehindLog, CursorMove, FindBehind, FindEnded, NotePurged
from openguild_proto.effects.federation import AskPeer, FindPeer, PeerUnavailable
from openguild_proto.limits import (
    MAX_DELIVERED_BYTES,
    MAX_DELIVERED_EVENTS,
    MAX_ENDED_GUILDS,
    MAX_LOOK_LOGS,
    MAX_PEER_BACKOFF_SECS,
    MAX_SEQUENCE,
    MAX_SHORT_ANSWER_BYTES,
    MIN_PEER_BACKOFF_SECS,
    PEER_HEADS_SECS,
)
from openguild_proto.policy.backoff import Backoff
from openguild_proto.procedures import Procedure, Signal
from openguild_proto.records import LogPosition
from openguild_proto.schemas.between_servers import DeliveryAnswer, MirrorPosition

TARGET = "/federation/v1/deliveries"
ANSWER_SECS = 30.0  # a peer may have to read a whole guild before it responds
HEADS_AT_ONCE = 50  # complete logs whose heads are compared each minute
UNKNOWN_SECS = 0.5  # by then a peer that is just joining should know the guild
UNWARNED = 2  # looks with unknown logs before a warning
STORAGE_SECS = 1.0  # retry delay when the store is unavailable, before jitter
STATUSES = frozenset({"unknown", "epoch", "refused"})  # of a log whose events the peer has not stored
MAX_REASON_CHARS = 200  # in the log
_answers = msgspec.json.Decoder(DeliveryAnswer)


class PeerDelivery:
    """The delivery to `server`. Inputs: `log_grew`, `reread`, `contacted`, `handle_due`, `end`. `run` is the procedure."""

    __slots__ = (
        "_backoff", "_behind", "_ended", "_event_bytes", "_failed_ms", "_fell_back", "_greet_at", "_greeted",
        "_has_warned", "_held", "_host", "_is_soon", "_look_at", "_past", "_retry_at", "_signal", "_stands", "_storing",
        "_unknown", "counters", "due", "phase", "reason", "server",
    )  # fmt: skip

    def __init__(self, server: str, host: Host) -> None:
        self.server = server
        self.phase = Phase.LOOKING
        self.due = 0.0  # monotonic seconds: when it continues by itself
        self.counters = Counters()
        self.reason = ""  # of the last failure since the last success
        self._host = host
        self._behind: dict[str, BehindLog] = {}  # by log, in the order of turns
        self._held: dict[str, int] = {}  # logs that the peer refuses, until the next look; value: events that it lacks
        self._fell_back: set[str] = set()  # logs of which it had less than before, since the last look
        self._ended: dict[str, LogPosition] = {}  # guilds to purge, with the position of the last event
        self._stands: dict[str, LogPosition] = {}  # the peer's positions since the last look, stored or not
        self._storing: CursorBatch | None = None  # the cursors that were moved last
        self._past: tuple[str, str] | None = None  # after which log the next page begins
        self._look_at = 0.0
        self._greet_at = 0.0
        self._greeted: tuple[str, str] | None = None  # the log up to which heads were compared
        self._retry_at = 0.0
        self._failed_ms = 0
        self._has_warned = False  # since the last look
        self._is_soon = False  # the next look was moved forward; since the last one
        self._backoff = Backoff(host.jitter, base_secs=MIN_PEER_BACKOFF_SECS, max_secs=MAX_PEER_BACKOFF_SECS)
        self._unknown = 0  # consecutive looks with logs that the peer did not know
        self._event_bytes = float(GUESSED_BYTES)
        self._signal: Signal | None = None

    # --- inputs --------------------------------------------------------------------------------------

    def log_grew(self, log: BehindLog) -> None:
        """Handle the growth of a log that the peer mirrors."""
        if self.phase in {Phase.BACKING_OFF, Phase.ENDED} or not self._held.keys().isdisjoint(
            (log.log_id, log.guild_id)
        ):
            return
        known = self._behind.get(log.log_id)
        log = self._as_answered(log)
        if not (_lacking(log) or log.ends):
            return
        if known is None:
            self._behind[log.log_id] = log
        elif (known.head.epoch, known.epoch) == (log.head.epoch, log.epoch):
            if known.head.sequence < log.head.sequence:
                self._behind[log.log_id] = replace(known, head=log.head, ends=log.ends)
        else:
            self._behind[log.log_id] = log
        if log.ends:
            self._drop_channels(log.guild_id)
        self._count_behind()
        self._wake()

    def reread(self) -> None:
        """Read the whole backlog again, because something unknown has changed."""
        if self.phase is not Phase.BACKING_OFF:
            self._look_soon()
            self._wake()

    def contacted(self) -> None:
        """Retry soon, because the peer has sent a signed request."""
        self._backoff.reset()
        soon = self._host.procedures.now + self._host.jitter() * MIN_PEER_BACKOFF_SECS
        if self.phase is Phase.BACKING_OFF and self._retry_at > soon:
            self._retry_at = soon
            if self.due > soon:
                self.due = soon
                self._host.due_changed(self.server, self.due)

    def handle_due(self) -> None:
        """Continue: `due` has passed."""
        self._wake()

    def end(self) -> None:
        """Stop, because another process delivers to the peer from now on. A running request is finished."""
        self.phase = Phase.ENDED
        self._wake()

    @property
    def is_ended(self) -> bool:
        """Whether this process no longer delivers to it."""
        return self.phase is Phase.ENDED

    def _wake(self) -> None:
        if self._signal is not None:
            self._signal.set()

    # --- the procedure -------------------------------------------------------------------------------

    def run(self) -> Procedure[None]:
        """Deliver until `end`."""
        while not self.is_ended:
            try:
                until = yield from self._step()
            except StorageUnavailable:
                until = self._put_off("storage", STORAGE_SECS * (0.5 + self._host.jitter()))
            except PeerUnavailable as failure:
                until = self._put_off(failure.reason, self._backoff.next_delay(failure.wait_secs))
            except Exception as failure:  # a defect: logged, and retried like a failure of the peer
                self._host.log(Level.ERROR, "a delivery failed", failure, peer=self.server)
                until = self._put_off("defect", self._backoff.next_delay())
            if until is not None and not self.is_ended:
                yield from self._wait(until)

    def _wait(self, until: float) -> Procedure[None]:
        self.due = until
        self._host.due_changed(self.server, self.due)
        self._signal = Signal(self._host.procedures)
        yield from self._signal.wait()
        self._signal = None

    def _step(self) -> Procedure[float | None]:
        """Do the next thing. Return when to continue, or None to continue at once."""
        now = self._host.procedures.now
        if self.phase is Phase.BACKING_OFF:
            if now < self._retry_at:
                yield from self._glance()
                return min(self._retry_at, self._host.procedures.now + PEER_HEADS_SECS)
            self._look_soon()
        if self._look_at <= now or (not self._behind and self._past is not None):
            yield from self._look()
            return None
        wanted = choose(self._behind.values(), self._room())
        if not wanted and not self._ended:
            if self._greet_at > now:
                self._turn(Phase.LEVEL)
                return min(self._look_at, self._greet_at)
            wanted = yield from self._heads()
        yield from self._host.pace(sum(each.size for each in wanted))
        yield from self._host.take_place(self.server)
        try:
            yield from self._deliver(wanted)
        finally:
            self._host.leave_place(self.server)
        return None

    def _turn(self, phase: Phase) -> None:
        if not self.is_ended:
            self.phase = phase

    def _put_off(self, reason: str, secs: float) -> float:
        """Record a failure and back off. The backlog is read again before the next attempt."""
        if reason != self.reason:
            self._host.log(
                Level.WARNING,
                "deliveries to a peer are paused",
                peer=self.server,
                reason=reason,
                retry_secs=round(secs, 1),
            )
        self.reason = reason
        self.counters.failures += 1
        self.counters.backoff_secs = secs
        self._turn(Phase.BACKING_OFF)
        self._behind.clear()
        self._held.clear()
        self._failed_ms = self._host.wall_ms
        self._retry_at = self._host.procedures.now + secs
        return min(self._retry_at, self._host.procedures.now + PEER_HEADS_SECS)

    def _glance(self) -> Procedure[None]:
        """While backing off, count the backlog, and check whether another process had contact with the peer."""
        if self.due > self._host.procedures.now:
            return
        found = yield from FindBehind(peer=self.server, limit=MAX_LOOK_LOGS)
        self.counters.behind = sum(_lacking(log) for log in found)
        peer = yield from FindPeer(server=self.server)
        if peer is not None and peer.contacted_ms > self._failed_ms:
            self.contacted()

    # --- the backlog ---------------------------------------------------------------------------------

    def _look_soon(self) -> None:
        self._look_at = 0.0
        self._past = None

    def _look(self) -> Procedure[None]:
        """Read the backlog, or its next page."""
        self._turn(Phase.LOOKING)
        past = self._past
        if past is None:
            if not self._held:
                self._unknown = 0
            self._held.clear()
            self._fell_back.clear()
            self._behind.clear()
            self._has_warned = self._is_soon = False
            self._look_at = self._host.procedures.now + PEER_HEADS_SECS * (0.75 + 0.5 * self._host.jitter())
            yield from self._have_stored()
            self._ended = {place.log_id: place for place in (yield from FindEnded(peer=self.server))}
        found = yield from FindBehind(peer=self.server, limit=MAX_LOOK_LOGS, past=past)
        for log in found:
            self._behind.setdefault(log.log_id, log)
        is_whole = len(found) < MAX_LOOK_LOGS
        self._past = None if is_whole else (found[-1].guild_id, found[-1].log_id)
        self._count_behind()

    def _heads(self) -> Procedure[tuple[LogBatch, ...]]:
        """Return some logs that the peer should have completely. Its response confirms that, and that both servers are up."""
        self._set_greeting()
        logs = yield from FindBehind(peer=self.server, limit=HEADS_AT_ONCE, past=self._greeted, level=True)
        self._greeted = (logs[-1].guild_id, logs[-1].log_id) if len(logs) == HEADS_AT_ONCE else None
        return tuple(LogBatch(self._as_answered(log), 0) for log in logs if not (log.ends or log.log_id in self._held))

    def _as_answered(self, log: BehindLog) -> BehindLog:
        """Return the log with the position that the peer has reported since its cursor was read."""
        stands = self._stands.get(log.log_id)
        if stands is None or log.ends or stands.epoch != log.epoch or stands.sequence <= log.after:
            return log
        return replace(log, after=min(stands.sequence, log.head.sequence))

    def _have_stored(self) -> Procedure[None]:
        """Wait until the cursors are stored. Raises StorageUnavailable; the peer's next response then repeats them."""
        storing, self._storing = self._storing, None
        self._stands.clear()
        if storing is not None:
            yield from storing.wait()

    def _set_greeting(self) -> None:
        self._greet_at = self._host.procedures.now + PEER_HEADS_SECS * (0.75 + 0.5 * self._host.jitter())

    def _count_behind(self) -> None:
        self.counters.behind = sum(_lacking(log) for log in self._behind.values()) + sum(self._held.values())

    def _room(self) -> int:
        """Return about how many events fit, so that few are read in vain."""
        return max(1, min(MAX_DELIVERED_EVENTS, int(1.25 * MAX_DELIVERED_BYTES / self._event_bytes)))

    # --- a delivery ----------------------------------------------------------------------------------

    def _deliver(self, wanted: Sequence[LogBatch]) -> Procedure[None]:
        self._turn(Phase.SENDING)
        ended = tuple(self._ended[guild_id] for guild_id in sorted(self._ended)[:MAX_ENDED_GUILDS])
        prepared = yield from self._host.prepare(wanted, ended)
        for log_id in prepared.gone:
            self._behind.pop(log_id, None)
        if self.is_ended or not (prepared.sent or ended):
            return
        if prepared.events:
            self._event_bytes += (prepared.nbytes / prepared.events - self._event_bytes) / 4
        asked_ms = self._host.wall_ms
        self.counters.requests += 1
        answer = yield from AskPeer(self.server, "POST", TARGET, prepared.body, ANSWER_SECS, MAX_SHORT_ANSWER_BYTES)
        if answer.status != 200:
            raise PeerUnavailable(self.server, f"status_{answer.status}")
        try:
            said = _answers.decode(answer.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise PeerUnavailable(self.server, "malformed_answer") from None
        yield from self._settle(prepared, ended, said, asked_ms)

    def _settle(
        self, prepared: Prepared, ended: tuple[LogPosition, ...], said: DeliveryAnswer, asked_ms: int
    ) -> Procedure[None]:
        """Process the peer's response and store its positions."""
        self._succeeded(prepared)
        places = {place.log_id: place for place in said.logs}
        moves = [move for part in prepared.sent if (move := self._move(part, places.get(part.log.log_id))) is not None]
        self._count_behind()
        may_purge = {
            *(place.log_id for place in ended),
            *(part.log.guild_id for part in prepared.sent if part.log.ends),
        }
        purged = tuple(sorted(may_purge.intersection(said.purged)))
        for guild_id in (*purged, *(place.log_id for place in ended)):  # of those it has not purged at the next look
            self._ended.pop(guild_id, None)
        if moves:
            self._storing = self._host.move_cursors([CursorMove(self.server, place) for place in moves])
        if purged:
            yield from NotePurged(peer=self.server, guild_ids=purged, now_ms=asked_ms)

    def _succeeded(self, prepared: Prepared) -> None:
        if self.reason:
            self._host.log(Level.INFO, "deliveries to a peer have resumed", peer=self.server)
        self.reason = ""
        self._set_greeting()
        self.counters.events += prepared.events
        self.counters.backoff_secs = 0.0
        self._backoff.reset()

    def _move(self, part: Sent, place: MirrorPosition | None) -> LogPosition | None:
        """Process the mirror's position in a log. Return the new position of the cursor, or None if it stays."""
        log = self._behind.pop(part.log.log_id, part.log)
        if log.head.epoch != part.log.head.epoch:  # the epoch was renewed meanwhile
            self._behind[log.log_id] = log
            return None
        if place is None or place.status != "ok" or not 0 <= place.sequence <= MAX_SEQUENCE:
            return self._refused(log, place)
        if place.epoch != log.head.epoch:
            return self._hold(log, "epoch", place)
        if log.epoch != log.head.epoch:  # the mirror restarted, with its other logs
            self._look_soon()
        elif part.last == part.log.after and place.sequence >= part.log.after:  # nothing was sent
            if log.after < log.head.sequence:
                self._behind[log.log_id] = log
            return None
        elif place.sequence <= part.log.after:
            if place.sequence == part.log.after or log.log_id in self._fell_back:
                return self._hold(log, "stalled", place)
            self._fell_back.add(log.log_id)
        after = min(place.sequence, log.head.sequence)  # a restored database may lack events that the peer has
        moved = replace(log, after=after, epoch=place.epoch)
        if moved.after < moved.head.sequence:
            self._behind[log.log_id] = moved  # at the end of the turns
        elif log.ends:
            self._ended[log.guild_id] = log.head
        self._stands[log.log_id] = stands = LogPosition(log.log_id, place.epoch, after)
        return stands

    def _refused(self, log: BehindLog, place: MirrorPosition | None) -> LogPosition | None:
        """Handle that the peer has not stored a part. A guild that has ended only needs to be purged."""
        if log.ends:
            self._ended[log.guild_id] = log.head
            return log.head
        status = "none" if place is None else place.status
        return self._hold(log, status if status in STATUSES else "malformed", place)

    def _hold(self, log: BehindLog, status: str, place: MirrorPosition | None) -> LogPosition | None:
        """Skip a log until the next look, and with a guild's own log all of the guild. The cursor stays.

        A peer that has just joined may not have the guild yet. It is checked again soon, at first without a warning.
        """
        if status == "unknown" and not self._is_soon:
            self._is_soon = True
            secs = UNKNOWN_SECS * float(1 << min(self._unknown, 16)) * (0.5 + 0.5 * self._host.jitter())
            self._look_at = min(self._look_at, self._host.procedures.now + secs)
            self._unknown += 1
        if not self._has_warned and not (status == "unknown" and self._unknown <= UNWARNED):
            self._has_warned = True
            reason = (place.reason or "")[:MAX_REASON_CHARS] if place is not None else ""
            self._host.log(
                Level.WARNING, "a peer does not accept the events of a log", peer=self.server, log_id=log.log_id,
                guild_id=log.guild_id, status=status, reason=reason,
            )  # fmt: skip
        self.counters.held += 1
        self._held[log.log_id] = _lacking(log)
        if log.is_guild:
            self._drop_channels(log.guild_id)
        return None

    def _drop_channels(self, guild_id: str) -> None:
        for log in [log for log in self._behind.values() if log.guild_id == guild_id and not log.is_guild]:
            del self._behind[log.log_id]


def _lacking(log: BehindLog) -> int:
    return max(0, log.head.sequence - log.after) if log.epoch == log.head.epoch else log.head.sequence
