"""One homeserver: its store outlives the process, and a crash abandons operations between any two effects."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING, Any, TypeAlias

from openguild_proto.canonical.keys import EventSigner
from openguild_proto.canonical.signing import SigningKey
from openguild_proto.delivery.actions import Level, Log, Query
from openguild_proto.delivery.deliveries import Deliveries
from openguild_proto.effects import Effect, StorageEffect, StorageUnavailable
from openguild_proto.effects.base import Operation
from openguild_proto.effects.federation import AskPeer, Discover, Exchange, Fetch, PeerUnavailable, RecordOwnKey
from openguild_proto.effects.process import Announce, LetOthersRun, WarnOperator
from openguild_proto.errors import Refusal
from openguild_proto.federation.asking import ask_peer
from openguild_proto.federation.discovery import discover
from openguild_proto.federation.keys import OVERLAP_MS
from openguild_proto.federation.policy import FederationPolicy, Mode
from openguild_proto.http.message import Request, Response
from openguild_proto.memory import MemoryTables
from openguild_proto.operations.context import Context, Service, Settings, rates
from openguild_proto.operations.dispatch import dispatch
from openguild_proto.policy.quotas import StreamLimiter
from openguild_proto.policy.ratelimit import SlidingWindow
from openguild_proto.schemas.log_writer import LogWriter
from openguild_proto.sessions.tokens import TokenAuthority
from tests.simulation.federation.population import SESSIONS
from tests.simulation.keys import Keys
from tests.support.world import START_MS, check_described

if TYPE_CHECKING:
    from tests.simulation.federation.scenario import Run

Done: TypeAlias = Callable[[Any, "Exception | None"], None]

ALL_RECORDS = 1_000  # of one change
RECORD_SECS = 3_600.0  # between two records of the key in use
SLOW_SHARE = 0.3  # share of the effects that take time
SLOW_SECS = 0.02
TOKEN_KEYS = Keys(SigningKey(bytes(32)))


class Server:
    """`skew_ms`: of its clock. `incarnation`: the number of its process; work of earlier ones is ignored."""

    def __init__(self, run: Run, name: str, state: bytes) -> None:
        self.name = name
        self.run = run
        self.clock = run.clock
        self.rng = Random(run.rng.getrandbits(64))
        self.tables = MemoryTables()
        self.tables._state = pickle.loads(state)
        self.skew_ms = 0
        self.is_up = False
        self.incarnation = 0
        self.restored_at = -1.0  # when its database was last restored
        self.signers = [self._signer(1)]
        self.faults = 0.0  # share of the effects that fail, half of them after they were performed
        self._crash_in: int | None = None  # number of effects
        self._timer_at: float | None = None
        self._is_carrying_out = False
        self.boot()

    @property
    def state(self) -> Any:
        return self.tables._state

    @property
    def wall_ms(self) -> int:
        return START_MS + int(self.clock.now * 1_000) + self.skew_ms

    # --- the process ---------------------------------------------------------------------------------

    def boot(self) -> None:
        """Start a process on the current store."""
        self.is_up = True
        self.incarnation += 1
        self._timer_at = None
        self.state.writer = LogWriter(self.name, self.signers[0])
        policy = FederationPolicy(mode=Mode.OPEN, server_name=self.name)
        settings = Settings(server_name=self.name, federation=policy, session=SESSIONS)
        self.service = Service.create(
            settings, TokenAuthority(TOKEN_KEYS), signer=self.signers[0], retired_signers=tuple(self.signers[1:])
        )
        for window in rates(settings):
            setattr(self.service, window, SlidingWindow(1_000_000, 60))
        self.service.sockets = StreamLimiter(100, 10, 50)
        for signer in self.signers:
            self._record(signer)
        self.clock.later(RECORD_SECS, self._record_again, self.incarnation)
        self.deliveries = Deliveries(f"{self.name}/{self.incarnation}", self.signers[0], self.rng.random)
        self._control_head = self.tables.control_head()
        self.run.plant(self)
        self._at().start()
        self.perform_actions()

    def crash(self, down_secs: float) -> None:
        """End the process; a new one starts after `down_secs`."""
        if self.is_up:
            self.run.report.crashes += 1
            self.is_up = False
            self.incarnation += 1
            self.clock.later(down_secs, self._boot_again, self.incarnation)

    def crash_at(self, effects: int) -> None:
        """Crash at one of the next effects."""
        self._crash_in = effects

    def _boot_again(self, incarnation: int) -> None:
        if incarnation == self.incarnation:
            self.boot()

    def rotate(self) -> None:
        """Restart with another key; the earlier one is kept for its public half."""
        self.signers.insert(0, self._signer(len(self.signers) + 1))
        self.crash(0.5)

    def _signer(self, number: int) -> EventSigner:
        seed = (self.name if number == 1 else f"{self.name} {number}").encode().ljust(32, b"k")
        return EventSigner(self.name, str(number), SigningKey(seed))

    def _record(self, signer: EventSigner) -> None:
        now_ms = self.wall_ms
        self.tables.perform(
            RecordOwnKey(key_id=signer.key_id, public_key=signer.public, now_ms=now_ms, not_after=now_ms + OVERLAP_MS)
        )

    def _record_again(self, incarnation: int) -> None:
        if incarnation == self.incarnation:
            self._record(self.signers[0])
            self.clock.later(RECORD_SECS, self._record_again, incarnation)

    # --- operations ----------------------------------------------------------------------------------

    def serve(self, request: Request, done: Callable[[Response], None]) -> None:
        """Run the operation of a request; `done` is not called if the process ends first."""
        now = self.clock.now
        context = Context(now=now, wall_ms=self.wall_ms, entropy=self.rng.randbytes, service=self.service)

        def answered(answer: Any, error: Exception | None) -> None:
            if error is not None:
                self.run.violation(f"{self.name}: {request.method} {request.path} failed: {error!r}")
                return
            check_described(request, answer)
            if answer.peer is not None:
                self._at().contacted(answer.peer[0])
                self.perform_actions()
            done(answer)

        self.begin(dispatch(context, request), answered)

    def begin(self, operation: Operation[Any], done: Done) -> None:
        """Drive an operation to its end."""
        self._go_on(self.incarnation, operation, done, None, None)

    def _go_on(
        self, incarnation: int, operation: Operation[Any], done: Done, value: Any, error: Exception | None
    ) -> None:
        if incarnation != self.incarnation:
            operation.close()
            return
        try:
            effect = operation.send(value) if error is None else operation.throw(error)
        except StopIteration as end:
            done(end.value, None)
        except Exception as failure:  # the caller decides what it means
            done(None, failure)
        else:
            self.perform(effect, lambda value, error: self._go_on(incarnation, operation, done, value, error))

    def perform(self, effect: Effect[Any], done: Done) -> None:
        """Perform an effect, now or soon."""
        match effect:
            case StorageEffect():
                if self.rng.random() < SLOW_SHARE:
                    secs = SLOW_SECS * self.rng.random()
                    self.clock.later(secs, self._store, self.incarnation, effect, done)
                else:
                    self._store(self.incarnation, effect, done)
            case AskPeer():
                policy, peers = self.service.settings.federation, self.service.peers
                self.begin(ask_peer(effect, policy, peers, self.clock.now, self.wall_ms), done)
            case Discover(server=server):
                self.begin(discover(server, self.service.settings.federation, self.wall_ms), done)
            case Exchange():
                self.run.network.exchange(self, effect, done)
            case Fetch():
                self.run.network.fetch(self, effect, done)
            case Announce() | LetOthersRun() | WarnOperator():
                done(None, None)
            case _:
                raise TypeError(type(effect).__name__)

    def _store(self, incarnation: int, effect: StorageEffect[Any], done: Done) -> None:
        if incarnation != self.incarnation:
            return
        if self._crash_in is not None:
            self._crash_in -= 1
            if self._crash_in <= 0:
                self._crash_in = None
                if self.rng.random() < 0.5:
                    with suppress(Refusal):  # no caller is left to get it
                        self.tables_perform(effect)
                self.crash(self.rng.uniform(0.1, 3))
                return
        fails = self.faults and self.rng.random() < self.faults
        if fails and self.rng.random() < 0.5:
            done(None, StorageUnavailable())
            return
        try:
            result = self.tables_perform(effect)
        except Refusal as refusal:
            done(None, refusal)
            return
        if fails:
            done(None, StorageUnavailable())
            return
        for event in self.run.books.take_grown(self):
            self._at().grew(event.log_id, event)
        for record in self.tables.control_since(self._control_head, ALL_RECORDS):
            self._control_head = record.sequence
            self._at().recorded(record)
        done(result, None)
        self.perform_actions()

    def tables_perform(self, effect: StorageEffect[Any]) -> Any:
        """Perform an effect at its time, and check it."""
        before = self.run.books.before(self, effect)
        result = self.tables.perform(effect)
        self.run.books.performed(self, effect, result, before)
        return result

    # --- deliveries ----------------------------------------------------------------------------------

    def _at(self) -> Deliveries:
        self.deliveries.at(self.clock.now, self.wall_ms)
        return self.deliveries

    def perform_actions(self) -> None:
        """Carry out the actions of the deliveries."""
        if self._is_carrying_out or not self.is_up:
            return
        self._is_carrying_out = True
        deliveries = self.deliveries
        while self.deliveries is deliveries and self.is_up and (action := self._at().next_action()) is not None:
            if isinstance(action, Query):
                self.perform(action.effect, self._answering(self.incarnation, action.number))
            elif isinstance(action, Log) and action.level is Level.ERROR:
                self.run.violation(f"{self.name}: {action.message}: {action.failure!r}")
        self._is_carrying_out = False
        self._arm()

    def _answering(self, incarnation: int, number: int) -> Done:
        def answered(result: Any, error: Exception | None) -> None:
            if incarnation != self.incarnation:
                return
            if error is None:
                self._at().answered(number, result)
            else:
                known = isinstance(error, StorageUnavailable | PeerUnavailable)
                if not known:
                    self.run.violation(f"{self.name}: an effect of the deliveries failed: {error!r}")
                self._at().failed(number, error)
            self.perform_actions()

        return answered

    def _arm(self) -> None:
        due = self.deliveries.next_deadline()
        if due is not None and (self._timer_at is None or due < self._timer_at):
            self._timer_at = due
            self.clock.at(max(due, self.clock.now), self._due, self.incarnation, due)

    def _due(self, incarnation: int, due: float) -> None:
        if incarnation != self.incarnation:
            return
        if self._timer_at == due:
            self._timer_at = None
        self._at().handle_deadline()
        self.perform_actions()
        self._arm()
