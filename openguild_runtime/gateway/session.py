"""One gateway socket: performs the actions of its `GatewayServer` in the core, and sends its bytes."""

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
    """The parts of the process that a session needs. `clock` returns monotonic and `wall` UTC seconds."""

    feeds: Feeds
    limits: Limits
    clock: Callable[[], float]
    wall: Callable[[], float]
    woken: TurnQueue

    def start(self, function: Callable[..., Awaitable[None]], *arguments: Any) -> None:
        """Call `function` in a new task."""

    def do(self, session: GatewaySession, action: AnyAction) -> None:
        """Perform an action that concerns logs."""

    def count_reads(self, session: GatewaySession, reads: int) -> float | None:
        """Count `reads` against the user's limit; return the seconds to wait if it is exceeded, else None."""

    async def authenticate(self, session: GatewaySession, asked: Authenticate) -> Authenticated:
        """Check a token and return its claims. Raises Refusal and StorageUnavailable."""

    def claim(self, user_id: str) -> bool:
        """Reserve a socket for the user; return False if they have the maximum already."""

    def authenticated(self, session: GatewaySession) -> None:
        """Note that the session has a valid token."""

    async def run(self, request: Request) -> Response:
        """Run the operation of a command and return its response."""


class GatewaySession:
    """One gateway socket. `claims` are those of its token, `claimed_by` the user whose limit of sockets it counts against.

    Both are None until the socket is authenticated.
    """

    __slots__ = (
        "_attends", "_handle", "_is_shut", "_sessions", "_transport", "claimed_by", "claims", "opened", "server",
    )  # fmt: skip

    def __init__(self, sessions: SessionHost, transport: Transport, opened: OpenGateway, client_address: str) -> None:
        self.opened = opened
        self.claims: Claims | None = None
        self.claimed_by: str | None = None
        self._handle = transport.socket.fileno()  # -1 once the socket is gone
        self._sessions = sessions
        self._transport = transport
        self._attends = False  # `_attend` is queued
        self._is_shut = False  # nothing more is written
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
        """The fields of the session's log records."""
        return {"request_id": self.opened.request_id, "user_id": self.server.user_id}

    # --- actions ---------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Schedule `attend` for a later turn of the loop, so that many inputs of one turn are handled together."""
        if not self._attends:
            self._attends = True
            self._sessions.woken.call_soon(self._attend)

    def _attend(self) -> None:
        self._attends = False
        try:
            self.attend()
            self._transport.settle()
        except Exception:  # one socket's failure must not end the others
            log.exception("a gateway socket failed", **self.described)
            self._transport.abort()

    def left(self) -> None:
        """Perform the remaining actions after the socket has ended, without using its descriptor."""
        self._handle, self._is_shut = -1, True
        self.attend()

    def attend(self) -> None:
        """Perform the actions of the `GatewayServer`, and pause reading while it wants no messages."""
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
        except Exception:  # a defect of the server
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
        """Send without waiting; the pump sends the rest."""
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
        """Send the next bytes, as one step of the pump."""
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
        """Hold events back, because another source writes to the socket or it is closing."""
        self.server.hold_flushes()

    # --- deadlines -----------------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        """Return the next deadline in monotonic seconds, or None."""
        return self.server.next_deadline()

    def deadline_passed(self) -> None:
        """Handle the deadlines that have passed."""
        self.server.handle_deadline(self._sessions.clock())
        self.attend()
