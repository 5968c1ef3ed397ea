"""GatewayServer: one socket of the gateway, on the server (PROTOCOL 15).

The call contract, for every driver:

1. feed: pass in an input, with the time. Messages go to `receive`; answers to actions, `gone`, `expires_at`, `drain`, `close`,
   `left` and `handle_deadline` are inputs too. Hints such as typing come through `Feeds.ephemeral`;
2. carry out: call `next_action()` until it returns None, and carry the actions out in order, also after `left`. Answers may come at
   any later time, in any order, also after `left`: an `Unsubscribe` releases the feed of a late `subscribed`;
3. write: when the socket accepts bytes, and after a `Write`, call `next_write`, send, and call `sent` with the number of bytes
   accepted, until `next_write` returns b"". `sent` returns the rest of a partly sent message: send it before anything else. While
   the socket is blocked, call nothing; when it accepts bytes again, call `took_bytes` and continue. Writing may queue actions
   (a page is requested when the socket has room for it), so repeat step 2 afterwards;
4. check `wants_messages` (False: stop reading the socket) and `next_deadline`, and continue.

While there is something to write, the gate of the socket's handle in `Feeds` is shut, so that no flush writes in between.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from openguild_proto.deadlines import Deadlines
from openguild_proto.errors import ErrorCode
from openguild_proto.gateway.actions import AnyAction, Authenticate, Close, Grant, Run
from openguild_proto.gateway.close_codes import GATEWAY_CLOSES, GatewayClose
from openguild_proto.gateway.commands import answer_of, request_of
from openguild_proto.gateway.encoding import Encoding, MalformedFrame, WrongKind
from openguild_proto.gateway.feeds import Feed, Feeds
from openguild_proto.gateway.frames import (
    Auth,
    AuthExpiring,
    ClientFrame,
    Drain,
    Err,
    GoneCode,
    Heartbeat,
    Ok,
    Problem,
)
from openguild_proto.gateway.hello import hello_frame
from openguild_proto.gateway.lanes import Lanes
from openguild_proto.gateway.logs import SocketLogs
from openguild_proto.gateway.outputs import SocketOutputs
from openguild_proto.gateway.phases import MAY_RUN, TRANSITIONS, Deadline, Input, Phase
from openguild_proto.gateway.subscriptions import Subscriptions
from openguild_proto.http.message import Response
from openguild_proto.limits import (
    GATEWAY_AUTH_SECS,
    GATEWAY_HEARTBEAT_SECS,
    MAX_TOKEN_CHARS,
    PAGE_RETRY_SECS,
    SILENT_HEARTBEATS,
    SLOT_GRACE_SECS,
    TOKEN_NOTICE_SECS,
    Limits,
)
from openguild_proto.schemas.shapes import shape_problem

DEFAULT_LIMITS = Limits()


class GatewayServer:
    """One gateway socket. `handle`: identifies it in `feeds`. `token`: from the header or subprotocol of the upgrade, if any.

    `wake()` is called when `next_action` has something again, which inputs of other sockets and flushes may cause. `wall_ms`:
    UTC milliseconds. `heartbeat_secs`: the interval of the heartbeats of each side.
    """

    __slots__ = (
        "_client_address", "_deadlines", "_encoding", "_heartbeat_secs", "_lanes", "_logs", "_outputs", "_ref", "_renewal",
        "_request_id", "_running", "_token", "phase", "session_id",
    )  # fmt: skip

    def __init__(
        self,
        feeds: Feeds,
        encoding: Encoding,
        *,
        handle: int,
        wake: Callable[[], None],
        now: float,
        wall_ms: int,
        token: str | None = None,
        request_id: str = "",
        client_address: str = "",
        limits: Limits = DEFAULT_LIMITS,
        heartbeat_secs: float = GATEWAY_HEARTBEAT_SECS,
    ) -> None:
        self.phase = Phase.OPENING
        self.session_id: str | None = None
        self._encoding = encoding
        self._request_id = request_id
        self._client_address = client_address
        self._heartbeat_secs = heartbeat_secs
        self._deadlines: Deadlines[Deadline] = Deadlines()
        self._deadlines.set(Deadline.AUTH, now + GATEWAY_AUTH_SECS)
        self._outputs = SocketOutputs(feeds, handle, encoding, wake)
        self._lanes = Lanes()
        self._logs = SocketLogs(feeds, handle, encoding, self._outputs, self._lanes)
        self._token = ""
        self._renewal: tuple[int, Auth] | None = None  # the unanswered `Authenticate`, with its number
        self._running = 0  # the number of the unanswered `Run`, 0 for none
        self._ref = 0  # of its command
        self._outputs.say(hello_frame(limits, heartbeat_secs, wall_ms))
        if token is not None:
            self._authenticate(Auth(token))

    # --- getters -------------------------------------------------------------------------------------

    @property
    def wants_messages(self) -> bool:
        """Whether to read the socket: False while too much is queued."""
        return not (self._lanes.is_full or self._outputs.outgoing.is_full)

    @property
    def user_id(self) -> str | None:
        """The authenticated user, None before authentication."""
        return self._outputs.user_id

    @property
    def encoding(self) -> Encoding:
        """The encoding of the socket's frames."""
        return self._encoding

    @property
    def subscriptions(self) -> Subscriptions:
        """The logs that the socket follows."""
        return self._logs.subscriptions

    def next_deadline(self) -> float | None:
        """Return the monotonic time at which to call `handle_deadline`, None if no deadline is running."""
        return self._deadlines.next()

    def next_action(self) -> AnyAction | None:
        """Remove and return the next action, None if none is left."""
        actions = self._outputs.actions
        return actions.popleft() if actions else None

    # --- the machine ---------------------------------------------------------------------------------

    def _move(self, step: Input) -> bool:
        """Change to the phase that `step` leads to; nothing else changes it. Return False if `step` has no meaning now."""
        target = TRANSITIONS[self.phase].get(step)
        if target is None:
            return False
        if target is not self.phase:
            self.phase = target
            self._deadlines.stop_all_but(MAY_RUN[target])
        return True

    def _end(self, step: Input, code: GatewayClose, reason: str | None = None) -> None:
        was_closed = self.phase is Phase.CLOSED
        self._move(step)
        if self.phase is Phase.CLOSED and not was_closed:
            self._stop()
            self._outputs.has_output()  # the gate stays shut: no event may follow a close frame
            self._outputs.act(Close(code, GATEWAY_CLOSES[code].reason if reason is None else reason))

    def _stop(self) -> None:
        self._lanes.clear()
        self._logs.stop()
        self._renewal = None
        self._running = 0

    # --- the client's messages -----------------------------------------------------------------------

    def receive(self, payload: str | bytes, now: float) -> None:
        """Process a message: text as `str`, binary as `bytes`."""
        if self.phase is Phase.CLOSED:
            return
        self._message_received(now)
        try:
            frame = self._encoding.decode_client(payload)
        except WrongKind:
            self._end(Input.VIOLATION, GatewayClose.WRONG_KIND)
        except MalformedFrame as fault:
            self._refuse_frame(fault, len(payload))
        else:
            self._take(frame, len(payload))

    def _refuse_frame(self, fault: MalformedFrame, nbytes: int) -> None:
        if fault.ref is None or self.phase is Phase.OPENING:
            self._end(Input.VIOLATION, GatewayClose.MALFORMED_FRAME, fault.close_reason)
            return
        self._move(Input.REQUEST)
        if fault.code is ErrorCode.VALIDATION:
            problem = Problem(*shape_problem(fault.problem, "frame", ClientFrame))
            refusal = Err(fault.ref, fault.code.spec.code, fault.code.spec.message, details=[problem])
        else:
            refusal = Err(fault.ref, fault.code.spec.code, fault.problem)
        if self.phase is not Phase.CHECKING:
            self._outputs.say(refusal)
        else:  # it waits in order, as well-formed frames do
            self._lanes.add(refusal, nbytes)

    def _take(self, frame: ClientFrame, nbytes: int) -> None:
        match frame:
            case Heartbeat():
                self._move(Input.HEARTBEAT)
            case Auth():
                self._authenticate(frame)
            case _ if self.phase is Phase.OPENING:
                self._end(Input.REQUEST, GatewayClose.OUT_OF_ORDER)
            case _:
                self._move(Input.REQUEST)
                self._lanes.add(frame, nbytes)
                self._run_lanes()

    def _message_received(self, now: float) -> None:
        if Deadline.SILENCE in self._deadlines:
            self._deadlines.set(Deadline.SILENCE, now + SILENT_HEARTBEATS * self._heartbeat_secs)

    # --- authentication ------------------------------------------------------------------------------

    def _authenticate(self, auth: Auth) -> None:
        if self.phase in {Phase.CHECKING, Phase.RENEWING}:
            self._end(Input.AUTH, GatewayClose.OUT_OF_ORDER)
            return
        self._move(Input.AUTH)
        if self.phase is Phase.DRAINING:
            self._outputs.refuse(auth.ref, ErrorCode.DRAINING)
            return
        if len(auth.token) > MAX_TOKEN_CHARS:
            auth = Auth("", auth.ref)  # equally invalid, and needs no memory
        self._renewal = self._outputs.next_number(), auth
        self._outputs.act(Authenticate(self._outputs.number, auth.token, renews=self.user_id is not None))

    def authenticated(self, number: int, grant: Grant, now: float) -> None:
        """Answer an `Authenticate`: the token is valid."""
        was, auth = self.phase, self._answered_auth(number)
        if auth is None or not self._move(Input.AUTHENTICATED):
            return
        if was is not Phase.CHECKING and grant.ready.user.user_id != self.user_id:
            self._outputs.refuse(auth.ref, ErrorCode.UNAUTHORIZED, "the token belongs to another user")
            return
        self._token = auth.token
        self.session_id = grant.ready.session.session_id
        self.expires_at(grant.ends_at, now)
        if was is not Phase.CHECKING:
            self._outputs.say(Ok(auth.ref))
            return
        self._outputs.user_id = grant.ready.user.user_id
        self._outputs.say(grant.ready)
        self._deadlines.set(Deadline.HEARTBEAT, now + self._heartbeat_secs)
        self._deadlines.set(Deadline.SILENCE, now + SILENT_HEARTBEATS * self._heartbeat_secs)
        self._run_lanes()

    def auth_refused(self, number: int) -> None:
        """Answer an `Authenticate`: the token is invalid."""
        self._not_authenticated(number, Input.REFUSED, ErrorCode.UNAUTHORIZED, GatewayClose.TOKEN_REFUSED)

    def auth_unchecked(self, number: int, code: ErrorCode = ErrorCode.DATABASE_UNAVAILABLE) -> None:
        """Answer an `Authenticate`: the token cannot be checked. `code`: OVERLOADED if too many requests wait for the store."""
        self._not_authenticated(number, Input.UNCHECKED, code, GatewayClose.TRY_LATER)

    def _not_authenticated(self, number: int, step: Input, code: ErrorCode, close: GatewayClose) -> None:
        auth = self._answered_auth(number)
        if auth is not None and step in TRANSITIONS[self.phase]:
            self._outputs.refuse(auth.ref, code)
            self._end(step, close)

    def _answered_auth(self, number: int) -> Auth | None:
        """Return the `auth` that this answers, None if the answer is no longer awaited."""
        if self._renewal is None or self._renewal[0] != number:
            return None
        (_, auth), self._renewal = self._renewal, None
        return auth

    def expires_at(self, ends_at: float, now: float) -> None:
        """Set when the token expires: `ends_at`, monotonic seconds. Call it again when the wall clock was set."""
        if Deadline.EXPIRY in MAY_RUN[self.phase]:
            self._deadlines.set(Deadline.EXPIRY, ends_at)
            self._deadlines.set(Deadline.NOTICE, ends_at - min(TOKEN_NOTICE_SECS, max(ends_at - now, 0.0) / 10))

    # --- commands ------------------------------------------------------------------------------------

    def _run_lanes(self) -> None:
        """Start the next command and the next change of followed logs, if none is running."""
        if self.phase is Phase.CHECKING:
            return
        while not self._running and (command := self._lanes.next_command()) is not None:
            if isinstance(command, Err):
                self._outputs.say(command)
                continue
            self._ref, self._running = command.ref, self._outputs.next_number()
            request_id, address = f"{self._request_id}.{command.ref}", self._client_address
            request = request_of(command, token=self._token, request_id=request_id, client_address=address)
            self._outputs.act(Run(self._running, request))
        self._logs.begin_changes()

    def answered(self, number: int, response: Response) -> None:
        """Answer a `Run` with the response of its operation."""
        if number == self._running != 0:
            self._running = 0
            self._outputs.say(answer_of(self._ref, response, self._encoding))
            self._run_lanes()

    # --- logs ----------------------------------------------------------------------------------------

    def reads_counted(self, number: int, wait: float | None, now: float) -> None:
        """Answer a `CountReads`: the reads are allowed (None), or are to be counted again in `wait` seconds."""
        if wait is None:
            self._logs.reads_counted(number)
        elif self._logs.waits_for_reads(number) and Deadline.READS in MAY_RUN[self.phase]:
            self._deadlines.set(Deadline.READS, now + wait)

    def subscribed(self, number: int, feed: Feed) -> None:
        """Answer a `Subscribe`: the user may read this log. `feed` is open, at or after the head read with the user's rights."""
        self._logs.subscribed(number, feed)

    def sub_refused(self, number: int, log: str, code: ErrorCode) -> None:
        """Answer a `Subscribe`: the user may not read this log, or it cannot be followed now."""
        self._logs.sub_refused(number, log, code)

    def gone(self, feed: Feed, code: GoneCode) -> None:
        """End a log that the user may no longer read, or that was deleted. Ignored if the socket does not follow it."""
        self._logs.gone(feed, code)

    def page(self, feed: Feed, after: int, pieces: Sequence[bytes], now: float) -> None:
        """Answer a `ReadPage` with whole messages of the events right after `after`. No pieces: the log cannot be read now."""
        if not self._logs.page(feed, after, pieces) and Deadline.REST in MAY_RUN[self.phase]:
            self._deadlines.set(Deadline.REST, now + PAGE_RETRY_SECS)

    # --- writing -------------------------------------------------------------------------------------

    def next_write(self, max_bytes: int) -> bytes:
        """Return at least one whole message, about `max_bytes`: answers and control before events. b"": none is left."""
        data = self._outputs.outgoing.next_write(max_bytes)
        if not data and self.phase is not Phase.CLOSED and not self._outputs.holds:
            data = self._logs.subscriptions.next_write(max_bytes)
            if not data:
                self._outputs.all_written()
        return data

    def sent(self, nbytes: int) -> bytes:
        """Record the bytes that the socket accepted of the last `next_write`. Return the rest of a cut message: send it first."""
        outgoing = self._outputs.outgoing
        return outgoing.sent(nbytes) if outgoing.is_writing else self._logs.subscriptions.sent(nbytes)

    def hold_flushes(self) -> None:
        """Stop flushes until `next_write` returns b"", because the owner must first write something itself, such as a pong."""
        self._outputs.has_output()

    def hold_events(self, count: int) -> None:
        """Hold events back (1) while the user's rights are being read again, or release one hold (-1). Holds add up."""
        self._outputs.hold(count)

    def took_bytes(self, now: float) -> None:
        """Note that a blocked socket accepts bytes again, which shows that the client is alive."""
        self._message_received(now)

    # --- ends and deadlines --------------------------------------------------------------------------

    def drain(self, after_ms: int, now: float) -> None:
        """Tell the client to reconnect after `after_ms`, its slot. Close the socket if it is not authenticated."""
        if self.phase in {Phase.OPEN, Phase.RENEWING}:
            self._move(Input.DRAIN)
            self._outputs.say(Drain(after_ms))
            self._deadlines.set(Deadline.SLOT, now + after_ms / 1_000 + SLOT_GRACE_SECS)
        else:
            self._end(Input.DRAIN, GatewayClose.RESTART)

    def close(self, code: GatewayClose, reason: str | None = None) -> None:
        """End the socket with a code. Safe to repeat."""
        self._end(Input.CLOSE, code, reason)

    def left(self) -> None:
        """Note that the socket is closed. Safe to repeat."""
        self._move(Input.CLOSE)
        self._stop()
        self._logs.end()

    def handle_deadline(self, now: float) -> None:
        """Act on the deadlines that have passed; early calls do nothing."""
        while (name := self._deadlines.take_expired(now)) is not None:
            match name:
                case Deadline.HEARTBEAT:
                    self._deadlines.set(name, now + self._heartbeat_secs)
                    if self._outputs.outgoing.is_empty:  # otherwise other messages show life, or it is blocked
                        self._outputs.say(Heartbeat())
                case Deadline.NOTICE:
                    self._outputs.say(AuthExpiring(max(int((self._deadlines[Deadline.EXPIRY] - now) * 1_000), 0)))
                case Deadline.READS:
                    self._logs.count_reads()
                case Deadline.REST:
                    self._logs.subscriptions.rested()
                case Deadline.SILENCE if not self.wants_messages:  # the client may have sent something unread
                    self._deadlines.set(name, now + SILENT_HEARTBEATS * self._heartbeat_secs)
                case _:
                    self._end(*_ENDS[name])


_ENDS = {
    Deadline.AUTH: (Input.AUTH_TIMEOUT, GatewayClose.NO_AUTH),
    Deadline.SILENCE: (Input.SILENCE, GatewayClose.SILENT),
    Deadline.EXPIRY: (Input.EXPIRED, GatewayClose.TOKEN_EXPIRED),
    Deadline.SLOT: (Input.SLOT_PASSED, GatewayClose.RESTART),
}
"""deadline -> the step and the close code with which it ends the socket."""
