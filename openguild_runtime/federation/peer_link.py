"""Performs the effects that concern other servers: discovery and signed requests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import anyio
import structlog
from anyio.abc import TaskGroup

from openguild_proto.effects import Effect, Operation, StorageEffect, StorageUnavailable
from openguild_proto.effects.federation import (
    AskPeer,
    Discover,
    Exchange,
    Exchanged,
    Fetch,
    Fetched,
    FindPeer,
    Peer,
    PeerAnswer,
    PeerUnavailable,
)
from openguild_proto.effects.handovers import AbsorbHistory, StartAbsorbing
from openguild_proto.federation.asking import ask_peer
from openguild_proto.federation.discovery import discover
from openguild_proto.federation.policy import FederationPolicy
from openguild_proto.federation.signatures import sign_request
from openguild_proto.http.message import Headers
from openguild_proto.mirror_records import Handover
from openguild_proto.operations.context import Context, Service
from openguild_proto.operations.giving_up import give_up
from openguild_proto.operations.owner_changes import lost_owners
from openguild_proto.operations.taking_over import succeed
from openguild_proto.policy.server_slots import ServerSlots
from openguild_runtime.federation.connections import PeerConnections
from openguild_runtime.federation.guild_moves import GuildMoves
from openguild_runtime.federation.lost_owners import watch_lost_owners
from openguild_runtime.observability.federation_metrics import FederationMetrics
from openguild_runtime.storage.base import Storage
from openguild_runtime.system.background import start_background_task
from openguild_runtime.system.clocks_and_entropy import ClocksAndEntropy
from openguild_runtime.system.operations import drive

T = TypeVar("T")

DISCOVERY_SECS = 20.0  # including redirects
MAX_DISCOVERIES = 16  # at once
NONCE_BYTES = 16
JSON_HEADERS: Headers = (("content-type", "application/json"),)

log = structlog.get_logger("openguild.federation")


class _Discovery:
    """A running discovery. All callers for the same server share it."""

    def __init__(self) -> None:
        self.ended = anyio.Event()
        self.peer: Peer | None = None
        self.failure: Exception | None = None


class PeerLink:
    """Sends requests to other servers. `sources.wall` is the clock of signatures."""

    def __init__(
        self,
        *,
        service: Service,
        storage: Storage,
        connections: PeerConnections,
        sources: ClocksAndEntropy,
        tasks: TaskGroup,
        metrics: FederationMetrics,
    ) -> None:
        self._service = service
        self._storage = storage
        self._connections = connections
        self._sources = sources
        self._tasks = tasks
        self._metrics = metrics
        self._discoveries: dict[str, _Discovery] = {}
        self._places: ServerSlots[None] = ServerSlots(1, MAX_DISCOVERIES, service.response_times)
        self._absorbing: set[str] = set()  # IDs of logs
        self.moves = GuildMoves(storage=storage, run=self._run, context=self.context, is_on=lambda: self.policy.is_on)

    async def aclose(self) -> None:
        """Close the idle connections."""
        await self._connections.aclose()

    @property
    def policy(self) -> FederationPolicy:
        """The current configuration."""
        return self._service.settings.federation

    @property
    def current_key_id(self) -> str | None:
        """The ID of the key that signs, or None if the server has none."""
        return self._service.signer.key_id if self._service.signer is not None else None

    def forget(self, server: str) -> None:
        """Drop a server from the cache, because its row has changed."""
        self._service.peers.drop(server)

    def retry(self, server: str) -> None:
        """Allow the keys of a server to be fetched again at once."""
        self._service.peers.retry(server)

    async def find(self, server: str) -> Peer:
        """Return the stored peer, or an empty one for an unknown server. Raises StorageUnavailable."""
        return await self._storage.perform(FindPeer(server=server)) or Peer(server)

    def context(self) -> Context:
        """Return the context of an operation that runs now."""
        wall_ms = self._now_ms()
        return Context(self._sources.monotonic(), wall_ms, self._sources.random_bytes, self._service)

    async def succeed(self, handover: Handover) -> str | None:
        """Take over a guild whose owner is lost. Return why that is refused, or None. Raises StorageUnavailable."""
        return await self._run(succeed(self.context(), handover))

    async def give_up(self, guild_id: str, to: str) -> str | None:
        """Give up a guild to another server that owns it too. Return why that is refused, or None. Raises StorageUnavailable."""
        return await self._run(give_up(self.context(), guild_id, to))

    async def watch_owners(self) -> None:
        """Report lost owners to the metrics until cancelled."""
        await watch_lost_owners(
            lambda: self._run(lost_owners(self.context())), self._metrics.lost, is_on=lambda: self.policy.is_on
        )

    def start_absorbing(self, effect: StartAbsorbing) -> None:
        """Start to store a log with its history in the background, unless this process does so already."""
        if effect.log_id not in self._absorbing:
            self._absorbing.add(effect.log_id)
            self.in_background(self._absorb, effect)

    async def _absorb(self, effect: StartAbsorbing) -> None:
        try:
            await self._storage.perform(AbsorbHistory(owner=effect.owner, log_id=effect.log_id))
        except StorageUnavailable as failure:  # the next step of the move tries again
            log.warning("the history of a log is not stored yet", log_id=effect.log_id, reason=str(failure))
        finally:
            self._absorbing.discard(effect.log_id)

    def in_background(self, function: Callable[..., Awaitable[None]], *arguments: object) -> None:
        """Call a coroutine function in a task that ends with the server. Its exceptions are logged."""
        start_background_task(self._tasks, function, *arguments)

    async def ask(self, effect: AskPeer) -> PeerAnswer:
        """Send a signed request and return the answer. Raises PeerUnavailable."""
        policy = self._service.settings.federation
        operation = ask_peer(effect, policy, self._service.peers, self._sources.monotonic(), self._now_ms())
        try:
            answer = await self._run(operation)
        except PeerUnavailable as failure:
            self._metrics.failed(failure.server, failure.reason)
            log.info("a server gave no answer", server=failure.server, reason=failure.reason, detail=failure.detail)
            raise
        self._metrics.answered(effect.server)
        return answer

    async def discover(self, effect: Discover) -> Peer:
        """Fetch the address and the keys of a server. Raises PeerUnavailable."""
        found = self._discoveries.get(effect.server)
        if found is None:
            if not self._places.take(effect.server, self._sources.monotonic()):
                raise PeerUnavailable(effect.server, "busy")
            found = self._discoveries[effect.server] = _Discovery()
            self._tasks.start_soon(self._discover, effect.server, found)  # not cancelled with its callers
        await found.ended.wait()
        if found.peer is None:
            raise found.failure or PeerUnavailable(effect.server, "timeout")
        return found.peer

    async def _discover(self, server: str, found: _Discovery) -> None:
        try:
            with anyio.move_on_after(DISCOVERY_SECS):
                found.peer = await self._run(discover(server, self._service.settings.federation, self._now_ms()))
        except (PeerUnavailable, StorageUnavailable) as failure:
            found.failure = failure
            if isinstance(failure, PeerUnavailable):
                log.info("a server was not found", server=server, reason=failure.reason, detail=failure.detail)
        finally:
            del self._discoveries[server]
            self._places.leave(server, self._sources.monotonic())
            found.ended.set()

    async def fetch(self, effect: Fetch) -> Fetched:
        """Send an unsigned GET. Raises PeerUnavailable."""
        answer = await self._connections.request(
            effect.server,
            effect.base_url,
            effect.authority,
            method="GET",
            target=effect.target,
            headers=lambda: (("accept", "application/json"), ("connection", "close")),
            max_bytes=effect.max_bytes,
            reuses=False,
            timeout_secs=effect.timeout_secs,
        )
        return Fetched(answer.status, answer.header("location"), answer.body)

    async def exchange(self, effect: Exchange) -> Exchanged:
        """Sign and send a request, and return the answer. Raises PeerUnavailable."""
        signer = self._service.signer
        if signer is None:
            raise PeerUnavailable(effect.server, "off")
        signature = b""

        def sign() -> Headers:
            nonlocal signature
            headers, signature = sign_request(
                effect.method,
                effect.target,
                effect.authority,
                effect.body,
                signer=signer,
                created=self._now_ms() // 1_000,
                nonce=self._sources.random_bytes(NONCE_BYTES).hex(),
            )
            return headers + JSON_HEADERS if effect.body else headers

        answer = await self._connections.request(
            effect.server,
            effect.base_url,
            effect.authority,
            method=effect.method,
            target=effect.target,
            headers=sign,
            body=effect.body,
            max_bytes=effect.max_bytes,
            timeout_secs=effect.timeout_secs,
        )
        return Exchanged(answer.status, answer.headers, answer.body, signature)

    async def perform(self, effect: Effect[Any]) -> Any:
        """Perform an effect of federation or of the store. Raises TypeError for others."""
        match effect:
            case StorageEffect():
                return await self._storage.perform(effect)
            case AskPeer():
                return await self.ask(effect)
            case Discover():
                return await self.discover(effect)
            case Fetch():
                return await self.fetch(effect)
            case Exchange():
                return await self.exchange(effect)
            case _:
                raise TypeError(type(effect).__name__)

    async def _run(self, operation: Operation[T]) -> T:
        return await drive(operation, self.perform)

    def _now_ms(self) -> int:
        return int(self._sources.wall() * 1_000)
