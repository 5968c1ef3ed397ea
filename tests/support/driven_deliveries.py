"""Deliveries by one or more processes over one in-memory store to model peers; the test controls the time."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import msgspec

from openguild_proto.canonical.keys import EventSigner
from openguild_proto.canonical.signing import SigningKey
from openguild_proto.delivery.actions import AnyAction, Level, Log, Query, SendHint
from openguild_proto.delivery.deliveries import Deliveries
from openguild_proto.effects.base import StorageEffect, StorageUnavailable
from openguild_proto.effects.federation import AskPeer, FindPeer, PeerAnswer, PeerUnavailable
from openguild_proto.memory import MemoryTables
from openguild_proto.policy.response_times import ResponseTimes
from openguild_proto.schemas.between_servers import Delivery, DeliveryAnswer, LogDelivery, MirrorPosition

WALL_MS = 1_700_000_000_000
SIGNER = EventSigner("owner.test", "1", SigningKey(bytes(32)))


class ModelLog:
    """A mirrored log: the events after sequence `base`, in order of arrival."""

    def __init__(self, guild_id: str, epoch: int, base: int) -> None:
        self.guild_id = guild_id
        self.epoch = epoch
        self.base = base
        self.events: list[bytes] = []
        self.chain: str | None = None
        self.receipt: str | None = None

    @property
    def sequence(self) -> int:
        return self.base + len(self.events)


class ModelPeer:
    """A peer that stores delivered events, as the receiving side of the protocol does. It creates new channels of known guilds."""

    def __init__(self, server: str) -> None:
        self.server = server
        self.logs: dict[str, ModelLog] = {}
        self.requests: list[Delivery] = []
        self.purged: list[str] = []
        self.order: list[tuple[str, int]] = []  # (log, sequence) of each new event, in order of arrival
        self.answer: Callable[[LogDelivery], MirrorPosition | None] = lambda part: None  # replaces the real answer
        self.malformed: bytes | None = None  # the body of every answer, if set

    def take(self, body: bytes) -> DeliveryAnswer:
        delivery = msgspec.json.decode(body, type=Delivery)
        self.requests.append(delivery)
        places = [self.answer(part) or self._take(part) for part in delivery.logs]
        for ended in delivery.ended:
            self.purge(ended.guild_id)
        return DeliveryAnswer(places, [ended.guild_id for ended in delivery.ended])

    def _take(self, part: LogDelivery) -> MirrorPosition:
        log = self.logs.get(part.log_id)
        if log is None:
            if part.guild_id not in self.logs:
                return MirrorPosition(part.log_id, "unknown")
            log = self.logs[part.log_id] = ModelLog(part.guild_id, part.epoch, 0)
        if log.epoch != part.epoch:
            return MirrorPosition(part.log_id, "epoch", log.epoch, log.sequence)
        for sequence, event in enumerate(part.events, start=part.after + 1):
            if sequence == log.sequence + 1:
                log.events.append(event.event.encode())
                self.order.append((part.log_id, sequence))
        if part.after + len(part.events) == log.sequence:
            log.chain, log.receipt = part.chain, part.receipt
        return MirrorPosition(part.log_id, "ok", log.epoch, log.sequence)

    def purge(self, guild_id: str) -> None:
        self.purged.append(guild_id)
        self.logs = {log_id: log for log_id, log in self.logs.items() if log.guild_id != guild_id}


class DrivenDeliveries:
    """`fails(effect)` returns the exception that an effect raises instead of being performed, or None."""

    def __init__(self, tables: MemoryTables, peers: dict[str, ModelPeer], seed: int = 0) -> None:
        self.tables = tables
        self.peers = peers
        self.now = 1_000.0
        self.random = random.Random(seed)
        self.processes: list[Deliveries] = []
        self.lines: list[Log] = []
        self.asked: list[StorageEffect[Any]] = []
        self.fails: Callable[[Any], Exception | None] = lambda effect: None
        self.defects: list[Exception] | None = None  # what processes say of them; None: there are to be none
        self.loses_answer: Callable[[], bool] = lambda: False
        self.silent: set[str] = set()  # peers that never answer
        self.response_times = ResponseTimes()
        self.is_bus_up = True  # else hints get lost, and each process is told that the bus is down

    def add(self, name: str) -> Deliveries:
        """Start a process."""
        process = Deliveries(name, SIGNER, self.random.random, self.response_times)
        self.processes.append(process)
        process.at(self.now, self.wall_ms)
        process.start()
        self.perform_actions()
        return process

    @property
    def wall_ms(self) -> int:
        return WALL_MS + int(self.now * 1000)

    def at(self, process: Deliveries) -> Deliveries:
        process.at(self.now, self.wall_ms)
        process.bus_state(connected=self.is_bus_up)
        return process

    def grew(self) -> None:
        """Report each log that has grown to the first process, as if it had stored the events."""
        for event in self.tables.take_grown():
            self.at(self.processes[0]).grew(event.log_id, event)
        self.perform_actions()

    def grew_channel(self, log_id: str) -> None:
        self.at(self.processes[0]).grew(log_id)
        self.perform_actions()

    def perform_actions(self) -> None:
        """Carry out the processes' actions until there are none."""
        while True:
            done = [self._do(process, action) for process in self.processes if (action := self._next(process))]
            if not done:
                return

    def _next(self, process: Deliveries) -> AnyAction | None:
        return self.at(process).next_action()

    def _do(self, process: Deliveries, action: AnyAction) -> None:
        match action:
            case Query(effect=AskPeer(server=server)) if server in self.silent:
                pass
            case Query(number=number, effect=effect):
                try:
                    result = self._perform(effect)
                except (StorageUnavailable, PeerUnavailable) as error:
                    process.failed(number, error)
                except Exception as error:
                    if self.defects is None:
                        raise
                    process.failed(number, error)
                else:
                    process.answered(number, result)
            case SendHint(hint=hint):
                for other in self.processes:
                    if self.is_bus_up and other is not process:
                        self.at(other).hint_received(hint)
            case Log(level=Level.ERROR, failure=Exception() as failure) if self.defects is not None:
                self.defects.append(failure)
            case Log():
                assert action.level is not Level.ERROR, (action.message, repr(action.failure))
                self.lines.append(action)

    def _perform(self, effect: Any) -> Any:
        error = self.fails(effect)
        if error is not None:
            raise error
        if isinstance(effect, FindPeer):
            return None
        if not isinstance(effect, AskPeer):
            self.asked.append(effect)
            return self.tables.perform(effect)
        answer = self.peers[effect.server].take(effect.body)
        self.response_times.note(effect.server, 0.0, self.now, answered=True)
        if self.loses_answer():
            raise PeerUnavailable(effect.server, "timeout", sent=True)
        malformed = self.peers[effect.server].malformed
        return PeerAnswer(200, malformed if malformed is not None else msgspec.json.encode(answer))

    def run(self, secs: float) -> None:
        """Let time pass and carry out what is due."""
        end = self.now + secs
        while True:
            self.perform_actions()
            times = [time for process in self.processes if (time := process.next_deadline()) is not None]
            self.now = max(self.now, min(times, default=end))
            if self.now > end:
                self.now = end
                return
            for process in self.processes:
                self.at(process).handle_deadline()
