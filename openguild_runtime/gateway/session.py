"""One gateway socket: carries out the actions of its state machine in the core, and sends and receives its bytes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import structlog

from openguild_proto.effects.base import Overloaded, StorageUnavailable
from openguild_proto.errors import ErrorCode, Refusal
from openguild_proto.events import BytesReceived, Event, TextReceived
from openguild_proto.gateway.actions import AnyAction, Authenticate, Close, CountReads, Grant, Run, Write
from openguild_proto.gateway.close_codes import GatewayClose
from openguild_proto.gateway.encoding import SUBPROTOCOLS
from openguild_proto.gateway.feeds import Feeds
from openguild_proto.gateway.server import GatewayServer
from openguild_proto.http.message import OpenGateway, Request, Response
from openguild_proto.limits import Limits
from openguild_proto.operations.gateway import Authenticated
from openguild_proto.policy.clock_watch import deadline_of
from openguild_proto.sessions.tokens import Claims
from openguild_runtime.net.transport import SEND_BYTES, FeedResult, Transport
from openguild_runtime.system.turns import TurnQueue

log = structlog.get_logger("openguild.gateway")


class SessionHost(Protocol):
    """The parts of the process that a session needs. `clock`, `wall`: monotonic and UTC seconds."""

    feeds: Feeds
    limits: Limits
    clock: Callable[[], float]
    wall: Callable[[], float]
    woken: TurnQueue

    def start(self, function: Callable[..., Awaitable[None]], *arguments: Any) -> None:
        """Run the function in a new task."""

    def do(self, session: GatewaySession, action: AnyAction) -> None:
        """Carry out an action that concerns logs."""

    def count_reads(self, session: GatewaySession, reads: int) -> float | None:
        """Count reads for the session's user. Return the seconds to wait, or None if they were admitted."""

    async def authenticate(self, session: GatewaySession, asked: Authenticate) -> Authenticated:
        """Return the claims of the token. Raises Refusal, StorageUnavailable."""

    def claim(self, user_id: str) -> bool:
        """Take a place of the user. Return False if the user already has the maximum of sockets."""

    def authenticated(self, session: GatewaySession) -> None:
        """Note that the session is authenticated."""

    async def run(self, request: Request) -> Response:
        """Return the response of a command's operation."""


class GatewaySession:
    """`claims`: those of the token, once the session is authenticated. `claimed_by`: the user whose place the socket takes."""

    __slots__ = (
        "_attends", "_handle", "_is_shut", "_sessions", "_transport", "claimed_by", "claims", "opened", "server",
    )  # fmt: skip

    def __init__(self, sessions: SessionHost, transport: Transport, opened: OpenGateway, client_address: str) -> None:
        self.opened = opened
        self.claims: Claims | None = None
        self.claimed_by: str | None = None
        self._handle = transport.socket.fileno()  # -1 when the socket is gone
        self._sessions = sessions
        self._transport = transport
        self._attends = False  # its turn of the loop is scheduled
        self._is_shut = False  # no more writes
        self.server = GatewayServer(
            sessions.feeds,
            SUBPROTOCOLS[opened.encoding],
            handle=self._handle,
            wake=self.wake,
            now=sessions.clock(),
            wall_ms=int(sessions.wall() * 1_000),
            token=opened.token,
            request_id=opened.request_id,
            client_address=client_address,
            limits=sessions.limits,
        )

    @property
    def address(self) -> str:
        """The client's address."""
        return self.opened.address

    @property
    def described(self) -> dict[str, str | None]:
        """The fields of its log records."""
        return {"request_id": self.opened.request_id, "user_id": self.server.user_id}

    # --- what the machine wants ----------------------------------------------------------------------

    def wake(self) -> None:
        """Carry out the machine's actions in the next turn of the loop, so that the inputs of one turn are answered together."""
        if not self._attends:
            self._attends = True
            self._sessions.woken.call_soon(self._attend)

    def _attend(self) -> None:
        self._attends = False
        try:
            self.attend()
            self._transport.settle()
        except Exception:  # logged: the failure of one socket must not end the others
            log.exception("a gateway socket failed", **self.described)
            self._transport.abort()

    def left(self) -> None:
        """Note that the socket is gone: carry out the machine's last actions, and do not use the descriptor again."""
        self._handle, self._is_shut = -1, True
        self.attend()

    def attend(self) -> None:
        """Carry out the machine's actions."""
        while (action := self.server.next_action()) is not None:
            match action:
                case Write():
                    self._write()
                case Close(code=code, reason=reason) if not self._is_shut:
                    self._write()
                    self._is_shut = True
                    self.write_elsewhere()
                    self._transport.close(code, reason)
                case Authenticate():
                    self._sessions.start(self._authenticate, action)
                case CountReads(number=number, reads=reads):
                    wait = self._sessions.count_reads(self, reads)
                    self.server.reads_counted(number, wait, self._sessions.clock())
                case Run():
                    self._sessions.start(self._run, action)
                case _:
                    self._sessions.do(self, action)
        if self._handle >= 0:
            self._transport.socket.read_on(self.server.wants_messages)

    async def _authenticate(self, asked: Authenticate) -> None:
        try:
            found = await self._sessions.authenticate(self, asked)
        except Refusal:
            self.server.auth_refused(asked.number)
        except Overloaded:
            self.server.auth_unchecked(asked.number, ErrorCode.OVERLOADED)
        except StorageUnavailable:
            self.server.auth_unchecked(asked.number)
        except Exception:  # an error in the server
            log.exception("a gateway socket could not be authenticated", **self.described)
            self.server.auth_unchecked(asked.number)
        else:
            self._authenticated(asked.number, found)
        self.wake()

    def _authenticated(self, number: int, found: Authenticated) -> None:
        sessions, claims, now = self._sessions, found.claims, self._sessions.clock()
        if self._is_shut:
            return
        if self.claimed_by is None:
            if not sessions.claim(claims.user_id):
                self.server.close(GatewayClose.TOO_MANY_SOCKETS)
                return
            self.claimed_by = claims.user_id
        ends_at = deadline_of(claims.expires_at_us // 1_000, now, sessions.wall())
        self.server.authenticated(number, Grant(found.ready, ends_at), now)
        if self.server.session_id == claims.session_id:
            self.claims = claims
            sessions.authenticated(self)

    async def _run(self, action: Run) -> None:
        response = await self._sessions.run(action.request)
        self.server.answered(action.number, response)
        self.wake()

    # --- bytes ---------------------------------------------------------------------------------------

    def received(self, event: Event) -> None:
        """Handle a message of the client."""
        match event:
            case TextReceived(text=text):
                self.server.receive(text, self._sessions.clock())
            case BytesReceived(data=data):
                self.server.receive(data, self._sessions.clock())
        self.attend()

    def _write(self) -> None:
        """Send as many bytes as the socket accepts; the pump sends the rest."""
        transport = self._transport
        while not self._is_shut and not transport.is_pumping and not transport.closing:
            if transport.connection.outbox:
                transport.park()
                return
            data = self.server.next_write(SEND_BYTES)
            if not data:
                return
            self._sent(data, transport.send(data))

    def _sent(self, data: bytes, nbytes: int) -> None:
        rest = self.server.sent(max(nbytes, 0))
        if rest:
            self._transport.connection.outbox.append(rest)
        if nbytes < len(data):
            self._transport.park()

    def feed(self, transport: Transport) -> FeedResult:
        """Do one step of the pump."""
        data = b"" if self._is_shut else self.server.next_write(SEND_BYTES)
        if not data:
            return FeedResult.DONE
        nbytes = transport.send(data)
        rest = self.server.sent(max(nbytes, 0))
        if rest:
            transport.connection.outbox.append(rest)
        if nbytes > 0:
            self.server.took_bytes(self._sessions.clock())
        elif not transport.closing:
            return FeedResult.BLOCKED
        return FeedResult.MORE

    def write_elsewhere(self) -> None:
        """Make events wait: another part writes to the socket, or the socket is closing."""
        self.server.shut_gate()

    # --- deadlines -----------------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        """Return the next deadline in monotonic seconds, or None."""
        return self.server.next_deadline()

    def deadline_passed(self) -> None:
        """Act on the deadlines that have passed."""
        self.server.handle_deadline(self._sessions.clock())
        self.attend()
