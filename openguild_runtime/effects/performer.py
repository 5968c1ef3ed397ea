"""Runs the generator of an operation and performs each effect that it yields. The effects of a request share one deadline."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Protocol, TypeVar

import anyio
import anyio.lowlevel
import structlog

from openguild_proto.effects import Effect, Operation, Overloaded, StorageEffect, StorageUnavailable
from openguild_proto.effects.channels import Appended, AppendEvent, AppendFailure, Unchanged
from openguild_proto.effects.federation import AskPeer, Discover, Exchange, Exchanged, Fetch, Fetched, Peer, PeerAnswer
from openguild_proto.effects.handovers import StartAbsorbing
from openguild_proto.effects.mirrors import MirrorEvents
from openguild_proto.effects.performs import collect, performs
from openguild_proto.effects.process import (
    Announce,
    CheckReadiness,
    FindPresence,
    HashPassword,
    LetOthersRun,
    Readiness,
    RenderMetrics,
    VerifyPassword,
    WarnOperator,
)
from openguild_proto.hints import AnyHint, PresenceStatus
from openguild_proto.policy.lifecycle import Lifecycle
from openguild_proto.records import StoredEvent
from openguild_runtime.effects.passwords import PasswordHasher
from openguild_runtime.observability.tracing import Tracing
from openguild_runtime.storage.base import Storage
from openguild_runtime.system.deadlines import Deadlines

T = TypeVar("T")

log = structlog.get_logger("openguild.operations")


class Servers(Protocol):
    """Requests to other servers. Every method except `start_absorbing` raises PeerUnavailable."""

    async def ask(self, effect: AskPeer) -> PeerAnswer:
        """Send a signed request, and return the answer, whose signature is verified."""

    async def discover(self, effect: Discover) -> Peer:
        """Fetch and store the address and the keys of a server."""

    async def fetch(self, effect: Fetch) -> Fetched:
        """Send an unsigned GET."""

    async def exchange(self, effect: Exchange) -> Exchanged:
        """Sign and send a request, and return the answer."""

    def start_absorbing(self, effect: StartAbsorbing) -> None:
        """Start to store a log with its history, in the background. Raises nothing."""


class Performer:
    """Performs the effects of the process, and passes those of the store to `storage`."""

    def __init__(
        self,
        *,
        storage: Storage,
        lifecycle: Lifecycle,
        hasher: PasswordHasher,
        readiness: Callable[[], Awaitable[Readiness]],
        render_metrics: Callable[[], Awaitable[bytes | None]],
        committed: Callable[[StoredEvent, str], None],
        announce: Callable[[AnyHint], None],
        presence_of: Callable[[Iterable[str], str], dict[str, PresenceStatus]],
        servers: Servers,
        tracing: Tracing | None = None,
    ) -> None:
        self._storage = storage
        self._hasher = hasher
        self._readiness = readiness
        self._render_metrics = render_metrics
        self._committed = committed
        self._announce_hint = announce
        self._presence_of = presence_of
        self._servers = servers
        self._tracing = tracing
        self._lifecycle = lifecycle
        self._deadlines = Deadlines()
        self._turns = anyio.Lock(fast_acquire=True)

    async def run(
        self,
        operation: Operation[T],
        request_id: str = "",
        deadline: float = math.inf,
        effect: Effect[Any] | None = None,
    ) -> T:
        """Run `operation` to its end and return its result. `effect` is the effect that a begun operation has yielded.

        Failures of effects are thrown into the operation; those that it does not catch are raised. At `deadline` (in the time
        of `anyio.current_time`) the running effect is cancelled, with an unknown outcome. It and all later effects then fail
        with StorageUnavailable, or Overloaded for passwords.
        """
        try:
            if effect is None:
                effect = next(operation)
            with self._deadlines.at(deadline) as limit:
                while not limit.passed:
                    try:
                        result = await self.perform(effect, request_id)
                    except Exception as failure:  # the operation decides how to handle it
                        effect = operation.throw(failure)
                    else:
                        effect = operation.send(result)
            late = Overloaded if isinstance(effect, HashPassword | VerifyPassword) else StorageUnavailable
            while True:
                effect = operation.throw(late())
        except StopIteration as end:
            value: T = end.value
            return value
        finally:
            operation.close()

    async def perform(self, effect: Effect[Any], request_id: str = "") -> Any:
        """Perform an effect and return its result. Raises StorageUnavailable, Overloaded, and TypeError for an unknown effect."""
        if isinstance(effect, StorageEffect):
            if not self._lifecycle.has_started:
                raise StorageUnavailable
            if isinstance(effect, AppendEvent):
                return await self._append(effect, request_id)
            result = await self._storage.perform(effect)
            if isinstance(effect, MirrorEvents):
                for event in result.events:
                    self._announce(event, request_id)
            return result
        performed = PERFORMERS.get(type(effect))
        if performed is None:
            raise TypeError(f"no performer for effect {type(effect).__name__}")
        return await performed.function(self, effect)

    async def _append(self, effect: AppendEvent, request_id: str) -> Appended | Unchanged | AppendFailure:
        if self._tracing is None:
            outcome = await self._storage.perform(effect)
        else:
            with self._tracing.step("append"):
                outcome = await self._storage.perform(effect)
        if isinstance(outcome, Appended) and not outcome.repeated:
            self._announce(outcome.event, request_id)
        return outcome

    def _announce(self, event: StoredEvent, request_id: str) -> None:
        """Deliver a stored event. A bug there must not fail the post, which is stored."""
        try:
            self._committed(event, request_id)
        except Exception:
            log.exception("a stored event was not delivered", channel_id=event.log_id, sequence=event.sequence)

    @performs(HashPassword)
    async def _hash_password(self, effect: HashPassword) -> str:
        return await self._hasher.hash(effect.password)

    @performs(VerifyPassword)
    async def _verify_password(self, effect: VerifyPassword) -> bool:
        return await self._hasher.verify(effect.password_hash, effect.password)

    @performs(CheckReadiness)
    async def _check_readiness(self, effect: CheckReadiness) -> Readiness:
        return await self._readiness()

    @performs(RenderMetrics)
    async def _render(self, effect: RenderMetrics) -> bytes | None:
        return await self._render_metrics()

    @performs(Announce)
    async def _tell(self, effect: Announce) -> None:
        self._announce_hint(effect.hint)

    @performs(FindPresence)
    async def _find_presence(self, effect: FindPresence) -> dict[str, PresenceStatus]:
        return self._presence_of(effect.user_ids, effect.reader_id)

    @performs(Discover)
    async def _discover(self, effect: Discover) -> Peer:
        return await self._servers.discover(effect)

    @performs(AskPeer)
    async def _ask_peer(self, effect: AskPeer) -> PeerAnswer:
        return await self._servers.ask(effect)

    @performs(Fetch)
    async def _fetch(self, effect: Fetch) -> Fetched:
        return await self._servers.fetch(effect)

    @performs(Exchange)
    async def _exchange(self, effect: Exchange) -> Exchanged:
        return await self._servers.exchange(effect)

    @performs(StartAbsorbing)
    async def _start_absorbing(self, effect: StartAbsorbing) -> None:
        self._servers.start_absorbing(effect)

    @performs(LetOthersRun)
    async def _let_others_run(self, effect: LetOthersRun) -> None:
        async with self._turns:
            await anyio.lowlevel.checkpoint()

    @performs(WarnOperator)
    async def _warn_operator(self, effect: WarnOperator) -> None:
        log.warning(effect.message, **dict(effect.fields))


PERFORMERS = collect(Performer)
"""The methods that perform effects outside of the store, by effect."""
