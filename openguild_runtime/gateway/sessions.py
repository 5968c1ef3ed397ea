"""The gateway's sockets of a process. A session starts after the upgrade, and ends with its socket. Commands run the operations
of the routes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

import anyio
import structlog
from anyio.abc import TaskGroup

from openguild_proto.effects import Operation
from openguild_proto.errors import ErrorCode, Refusal
from openguild_proto.events import BytesReceived, TextReceived
from openguild_proto.gateway.actions import AnyAction, Authenticate
from openguild_proto.gateway.connection import connection_limits
from openguild_proto.gateway.feeds import Feeds
from openguild_proto.http.message import OpenGateway, Request, Response
from openguild_proto.http.refusal import error_response
from openguild_proto.limits import Limits
from openguild_proto.operations.context import Context, Service
from openguild_proto.operations.gateway import Authenticated, authenticate_gateway
from openguild_proto.replica.backlogs import closed_gateway_reader
from openguild_runtime.gateway.session import GatewaySession
from openguild_runtime.net.transport import Transport
from openguild_runtime.observability.log_context import bound_request
from openguild_runtime.replica.runner import ReplicaRunner
from openguild_runtime.system.background import start_background_task
from openguild_runtime.system.clocks_and_entropy import ClocksAndEntropy
from openguild_runtime.system.turns import TurnQueue

T = TypeVar("T")

log = structlog.get_logger("openguild.gateway")


class OperationRunner(Protocol):
    """The runner of operations."""

    service: Service
    clock: Callable[[], float]
    timeout_secs: float

    async def run(self, request: Request, deadline: float) -> Any:
        """Return what the request's operation returns."""

    async def perform(self, operation: Callable[[Context], Operation[T]], request_id: str, deadline: float) -> T:
        """Drive an operation to its end."""

    def completed(self, request: Request, result: Any, started: float) -> None:
        """Count and log a request."""

    def not_authenticated(self, cause: str) -> None:
        """Count an invalid token."""


class GatewaySessions:
    """The gateway's sockets of one process."""

    def __init__(
        self,
        runner: OperationRunner,
        replica: ReplicaRunner,
        sources: ClocksAndEntropy,
        tasks: TaskGroup,
        limits: Limits,
    ) -> None:
        self.feeds: Feeds = replica.replica.gateway.feeds
        self.clock = sources.monotonic
        self.wall = sources.wall
        self.woken = TurnQueue(sources.monotonic)
        self.limits = limits
        self.connection_limits = connection_limits(limits)
        self._runner = runner
        self._replica = replica
        self._tasks = tasks
        self._sessions: dict[Transport, GatewaySession] = {}

    # --- coming and going ----------------------------------------------------------------------------

    def open(self, transport: Transport, opened: OpenGateway, client_address: str) -> None:
        """Start a session: the upgrade was accepted."""
        session = GatewaySession(self, transport, opened, client_address)
        self._sessions[transport] = session
        transport.gateway = transport.feeder = session
        self._replica.gateway.open(transport, session)
        session.wake()

    def received(self, transport: Transport, event: TextReceived | BytesReceived) -> None:
        """Handle a message on any socket. Messages on streams are ignored."""
        session = self._sessions.get(transport)
        if session is not None:
            session.received(event)

    def timed_out(self, transport: Transport, reason: str | None) -> None:
        """Note that a deadline ends a socket. `reason`: for the metric of rejections."""
        session = self._sessions.get(transport)
        reader = closed_gateway_reader(session, reason, self.clock()) if session is not None else None
        if reader is not None:
            self._replica.replica.streams.closed_readers.add(reader)

    def left(self, transport: Transport) -> bool:
        """Note that the socket is gone. Return False if it was not a socket of the gateway."""
        session = self._sessions.pop(transport, None)
        if session is None:
            return False
        self._replica.gateway.leave(transport, session)
        session.left()
        self._runner.service.sockets.release(session.claimed_by, session.opened.address)
        log.debug("gateway socket ended", **session.described)
        return True

    # --- what a session needs ------------------------------------------------------------------------

    def start(self, function: Callable[..., Awaitable[None]], *arguments: Any) -> None:
        """Run the function in a new task."""
        start_background_task(self._tasks, function, *arguments)

    def do(self, session: GatewaySession, action: AnyAction) -> None:
        """Carry out an action that concerns logs."""
        self._replica.gateway.do(session, action)

    def count_reads(self, session: GatewaySession, reads: int) -> float | None:
        """Count reads for the session's user. Return the seconds to wait, or None if they were admitted."""
        return self._runner.service.user_queries.hit(str(session.server.user_id), self.clock(), reads)

    async def authenticate(self, session: GatewaySession, asked: Authenticate) -> Authenticated:
        """Return the claims of the token. Raises Refusal, StorageUnavailable."""
        deadline = anyio.current_time() + self._runner.timeout_secs
        request_id = session.opened.request_id

        def operation(ctx: Context) -> Operation[Authenticated]:
            return authenticate_gateway(ctx, asked.token, renews=asked.renews)

        try:
            with bound_request(request_id):
                return await self._runner.perform(operation, request_id, deadline)
        except Refusal as refusal:
            if refusal.log_cause is not None:
                self._runner.not_authenticated(refusal.log_cause)
            log.info("gateway token refused", cause=refusal.log_cause, client=session.address, **session.described)
            raise

    def claim(self, user_id: str) -> bool:
        """Take a place of the user. Return False if the user already has the maximum of sockets."""
        return self._runner.service.sockets.claim(user_id)

    def authenticated(self, session: GatewaySession) -> None:
        """Note that the session is authenticated."""
        self._replica.gateway.authenticated(session)

    async def run(self, request: Request) -> Response:
        """Return the response of a command's operation."""
        started = self._runner.clock()
        deadline = anyio.current_time() + self._runner.timeout_secs
        with bound_request(request.request_id):
            result = await self._runner.run(request, deadline)
            self._runner.completed(request, result, started)
        if isinstance(result, Response):
            return result
        return error_response(ErrorCode.SERVER_ERROR, request.request_id)
