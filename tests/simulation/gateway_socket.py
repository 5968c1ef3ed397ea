"""A replica's end of a gateway socket: it carries out the actions of its machine, and writes as the pipe accepts bytes."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from openguild_proto.effects import Operation
from openguild_proto.effects.base import StorageUnavailable
from openguild_proto.errors import Refusal
from openguild_proto.gateway.actions import Authenticate, Close, CountReads, Grant, Run, Write
from openguild_proto.gateway.encoding import SUBPROTOCOLS
from openguild_proto.gateway.server import GatewayServer
from openguild_proto.http.message import OpenGateway, Response
from openguild_proto.operations.gateway import Authenticated, authenticate_gateway
from openguild_proto.policy.clock_watch import deadline_of
from openguild_proto.sessions.tokens import Claims
from openguild_proto.ws.frames import close_frame
from tests.simulation.calls import OperationRun
from tests.simulation.pipes import Pipe
from tests.support.world import START_MS

if TYPE_CHECKING:
    from tests.simulation.process import Process

CLOSE_SECS = 5.0  # from the server's close frame to the client's


class GatewaySocket:
    """`handle`: a small number, unique within its process."""

    def __init__(self, process: Process, pipe: Pipe, opened: OpenGateway, handle: int) -> None:
        self.claims: Claims | None = None
        self.address = opened.address
        self.outbox = bytearray()  # the rest of a partly sent message
        self.has_ended = False
        self._is_closing = False
        self._is_blocked = False
        self._is_awake = False
        self._armed: float | None = None
        self._process = process
        self._pipe = pipe
        self.server = GatewayServer(
            process.replica.gateway.feeds,
            SUBPROTOCOLS[opened.encoding],
            handle=handle,
            wake=self.wake,
            now=process.clock.now,
            wall_ms=START_MS + int(process.clock.now * 1_000),
            token=opened.token,
            request_id=opened.request_id,
            client_address=opened.address,
        )

    # --- actions of the machine ----------------------------------------------------------------------

    def wake(self) -> None:
        if not self._is_awake:  # even after the end, to release what it holds
            self._is_awake = True
            self._process.clock.later(0.0, self._attend_later)

    def _attend_later(self) -> None:
        self._is_awake = False
        if self._process.alive:
            self.attend()

    def attend(self) -> None:
        """Carry out the machine's actions."""
        while (action := self.server.next_action()) is not None:
            match action:
                case Write():
                    self._write()
                case Close(code=code, reason=reason):
                    self._close(code, reason)
                case CountReads(number=number, reads=reads):
                    now, counted = self._process.clock.now, self._process.service.user_queries
                    self.server.reads_counted(number, counted.hit(str(self.server.user_id), now, reads), now)
                case Authenticate(number=number, token=token, renews=renews):
                    operation: Operation[Authenticated] = authenticate_gateway(
                        self._process.context(), token, renews=renews
                    )
                    OperationRun(self._process, operation, partial(self._authenticated, number)).go_on()
                case Run(number=number, request=request):
                    self._process.serve(request, partial(self._answered, number), None)
                case _:
                    self._process.gateways.do(self, action)
        self._arm()

    def _authenticated(self, number: int, found: Authenticated | None, error: Exception | None) -> None:
        if self.has_ended or not self._process.alive:
            return
        now = self._process.clock.now
        match error:
            case Refusal():
                self.server.auth_refused(number)
            case StorageUnavailable():
                self.server.auth_unchecked(number)
            case _ if found is not None:
                ends_at = deadline_of(found.claims.expires_at_us // 1_000, now, START_MS / 1_000 + now)
                self.server.authenticated(number, Grant(found.ready, ends_at), now)
                if self.server.session_id == found.claims.session_id:
                    self.claims = found.claims
                    self._process.gateways.authenticated(self)
        self.attend()

    def _answered(self, number: int, response: Response | None) -> None:
        if response is not None and self._process.alive and not self.has_ended:
            self.server.answered(number, response)
            self.attend()

    def received(self, payload: str) -> None:
        """Handle a message of the client."""
        if self._process.alive and not self.has_ended:
            self.server.receive(payload, self._process.clock.now)
            self.attend()

    # --- bytes ---------------------------------------------------------------------------------------

    def flush(self, messages: bytes) -> int:
        """Write bytes of the flush; return how many were accepted."""
        return 0 if self.outbox or self._is_blocked or self._is_closing else self._pipe.send(messages)

    def cut(self, rest: bytes) -> None:
        """Keep the rest of a message that the flush has partly written."""
        self.outbox += rest
        self.server.hold_flushes()
        self._write()

    def _write(self) -> None:
        while not self._is_blocked and not self._is_closing and not self.has_ended:
            if self.outbox:
                self._push()
                continue
            data = self.server.next_write(self._process.send_bytes)
            if not data:
                return
            taken = self._pipe.send(data)
            self.outbox += self.server.sent(taken)
            if taken < len(data):
                self._wait_for_room()

    def _push(self) -> None:
        taken = self._pipe.send(bytes(self.outbox))
        del self.outbox[:taken]
        if self.outbox:
            self._wait_for_room()

    def _wait_for_room(self) -> None:
        self._is_blocked = True
        self._pipe.waits_for_room = True

    def has_room(self) -> None:
        """Handle room in the pipe."""
        self._is_blocked = False
        if self.has_ended or not self._process.alive:
            return
        self.server.took_bytes(self._process.clock.now)
        if self._is_closing:
            self._push()
        else:
            self._write()
            self.attend()

    # --- deadlines and ends --------------------------------------------------------------------------

    def _arm(self) -> None:
        deadline = self.server.next_deadline()
        if deadline is not None and (self._armed is None or deadline < self._armed):
            self._armed = deadline
            self._process.clock.at(max(deadline, self._process.clock.now), self._due, deadline)

    def _due(self, deadline: float) -> None:
        if self._armed != deadline or self.has_ended or not self._process.alive:
            return
        self._armed = None
        self.server.handle_deadline(self._process.clock.now)
        self.attend()

    def _close(self, code: int, reason: str) -> None:
        """Close in order: the rest of a message, the last answers, then a close frame."""
        if self._is_closing or self.has_ended:
            return
        while data := self.server.next_write(self._process.send_bytes):
            self.outbox += data
            self.server.sent(len(data))
        self._is_closing = True
        self.outbox += close_frame(code, reason)
        if not self._is_blocked:
            self._push()
        self._process.clock.later(CLOSE_SECS, self.abort)

    def abort(self) -> None:
        """End both directions now."""
        if not self.has_ended:
            self._pipe.break_now()
            self.end()

    def end(self) -> None:
        """End: the client has disconnected, or has not answered in time."""
        if not self.has_ended:
            self.has_ended = True
            self._process.gateways.left(self)
