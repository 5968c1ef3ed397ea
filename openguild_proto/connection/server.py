"""ServerConnection: HTTP/1.1, then perhaps WebSocket; one object owns both phases of a connection.

The call contract, for every driver:

1. feed: `receive_data`, `receive_eof` or `handle_deadline`; take **all** events from the iterator that comes back
   (an assertion says so where it is forgotten);
2. answer: `respond` to each RequestReceived, `accept` or `respond` to each WebSocketRequested. Answering inside
   the loop lets the next pipelined request come out of the same iterator; after answering later, call
   `receive_data(b"")`;
3. send: `data_to_send()` (everything) or `outbox.peek`/`outbox.consume` (what the socket takes);
4. look: `close_now`, `wants_close` (once the outbox is empty), `next_deadline`; then go on.

Getters: `phase`, `is_websocket`, `is_open`, `is_answering`, `close_now`, `wants_close`, `next_deadline`. Commands:
`respond`, `accept`, `send_text`, `send_bytes`, `close`, `expire_at`, `wrote`, `write_blocked`, `write_idle`. Commands in
the wrong phase raise LocalProtocolError and change nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from openguild_proto.connection.deadlines import Deadline, Deadlines
from openguild_proto.connection.outbox import Outbox
from openguild_proto.connection.phases import TRANSITIONS, Phase
from openguild_proto.errors import ErrorCode, LocalProtocolError, Refusal
from openguild_proto.events import (
    DeadlineExpired,
    Event,
    PeerClosed,
    PeerGone,
    PeerViolated,
    RequestReceived,
    WebSocketRequested,
)
from openguild_proto.http.connection import HttpConnection
from openguild_proto.http.headers import HeaderPolicy
from openguild_proto.http.message import Headers, Request, Response
from openguild_proto.http.refusal import refusal_response
from openguild_proto.http.strictness import Rule
from openguild_proto.limits import Limits
from openguild_proto.ws import handshake, reasons
from openguild_proto.ws.close_codes import CloseCode
from openguild_proto.ws.connection import PingReceived, WebSocketDecoder
from openguild_proto.ws.frames import binary_frame, close_frame, ping_frame, pong_frame, text_frame
from openguild_proto.ws.reassembly import WsRule

DEFAULT_LIMITS = Limits()
DEFAULT_POLICY = HeaderPolicy()


class ServerConnection:
    """One accepted byte stream. `now`: monotonic seconds. `random_bytes(n)`: for request ids. `peer_address`: no port.

    `max_body_of(method, path)`: bytes that a request's body may have; without it `limits.max_body_bytes` holds alone.
    """

    __slots__ = (
        "_close_now", "_deadlines", "_http", "_is_last", "_lifetime_close", "_limits", "_policy",
        "_request", "_untaken", "_upgrade_pending", "_wants_close", "_ws", "outbox", "phase",
    )  # fmt: skip

    def __init__(
        self,
        *,
        now: float,
        random_bytes: Callable[[int], bytes],
        limits: Limits = DEFAULT_LIMITS,
        policy: HeaderPolicy = DEFAULT_POLICY,
        peer_address: str = "",
        max_body_of: Callable[[str, str], int] | None = None,
    ) -> None:
        self.phase = Phase.HTTP
        self.outbox = Outbox(limits.max_outbox_bytes)
        self._limits = limits
        self._policy = policy
        self._http: HttpConnection | None = HttpConnection(limits, policy, random_bytes, peer_address, max_body_of)
        self._ws: WebSocketDecoder | None = None
        self._deadlines = Deadlines()
        self._deadlines.set(Deadline.HEAD, now + limits.head_timeout_secs)
        self._request: Request | None = None  # being answered
        self._upgrade_pending = False
        self._untaken = False
        self._is_last = False  # the request under way is answered, and no other one
        self._wants_close = False
        self._close_now = False
        self._lifetime_close: tuple[int, str] = (CloseCode.TOKEN_ENDED, reasons.EXPIRED)

    def _move(self, command: str) -> None:
        target = TRANSITIONS.get((self.phase, command))
        if target is None:
            raise LocalProtocolError(f"{command} is not possible while {self.phase.value}")
        self.phase = target

    # --- getters -----------------------------------------------------------------------------------

    @property
    def is_websocket(self) -> bool:
        """True from `accept` on."""
        return self._http is None

    @property
    def is_open(self) -> bool:
        """A WebSocket to which messages may still be sent: nothing follows a close frame (RFC 6455 5.5.1)."""
        return self.phase is Phase.WEBSOCKET

    @property
    def is_answering(self) -> bool:
        """A whole request is with the caller, who has not answered it."""
        return self._request is not None

    @property
    def wants_close(self) -> bool:
        """Close the socket as soon as the outbox is empty."""
        return self._wants_close

    @property
    def close_now(self) -> bool:
        """Close the socket without sending what waits."""
        return self._close_now

    def next_deadline(self) -> float | None:
        """Monotonic seconds at which `handle_deadline` has something to do."""
        return self._deadlines.next()

    def data_to_send(self) -> list[bytes]:
        """Take everything that waits to be sent."""
        return self.outbox.take()

    # --- feeding -----------------------------------------------------------------------------------

    def receive_data(self, data: bytes, now: float) -> Iterator[Event]:
        """Bytes from the peer, cut anywhere. They are kept at once; the iterator works through them."""
        assert not self._untaken, "take all events of one feeding before the next"
        events: Iterator[Event] = iter(())
        if self._http is not None and self.phase is Phase.HTTP:
            rule = self._http.feed(data)
            events = self._http_events(now) if rule is None else self._violated(rule)
        elif self._ws is not None and self.phase in {Phase.WEBSOCKET, Phase.CLOSING}:
            self._ws.receive(data)
            events = self._ws_events(self._ws, now)
        self._untaken = __debug__
        return self._watched(events) if __debug__ else events

    def _watched(self, events: Iterator[Event]) -> Iterator[Event]:
        yield from events
        self._untaken = False

    def receive_eof(self, now: float) -> Iterator[Event]:
        """The peer ended its side. A half-closed client still gets the answer to a whole request."""
        if self._request is None:
            self._end()
        self._wants_close = True
        yield PeerGone()

    def _http_events(self, now: float) -> Iterator[Event]:
        http = self._http
        while http is not None and self.phase is Phase.HTTP and self._request is None:
            outcome = http.next_request()
            if isinstance(outcome, Rule):
                yield from self._violated(outcome)
                return
            if outcome is None:
                self._await_more(http, now)
                return
            self._deadlines.clear(Deadline.HEAD, Deadline.BODY, Deadline.IDLE)
            self._request = outcome
            yield self._requested(outcome)
            http = self._http
        if self._ws is not None and self.phase in {Phase.WEBSOCKET, Phase.CLOSING}:
            yield from self._ws_events(self._ws, now)

    def _await_more(self, http: HttpConnection, now: float) -> None:
        deadlines, limits = self._deadlines, self._limits
        if http.receiving_body:
            if http.continue_due:
                self.outbox.append(http.continue_bytes())
            if Deadline.BODY not in deadlines:
                deadlines.clear(Deadline.HEAD, Deadline.IDLE)
                deadlines.set(Deadline.BODY, now + limits.body_timeout_secs)
        elif http.head_begun and Deadline.HEAD not in deadlines:
            deadlines.clear(Deadline.IDLE)
            deadlines.set(Deadline.HEAD, now + limits.head_timeout_secs)

    def _requested(self, request: Request) -> Event:
        if not handshake.wants_upgrade(request):
            self._upgrade_pending = False
            return RequestReceived(request)
        refusal = handshake.check(request, self._policy)
        if refusal is not None:
            return self._refused(refusal, "invalid_handshake")
        self._upgrade_pending = True
        return WebSocketRequested(msgspec.structs.replace(request, is_upgrade=True))

    def _violated(self, rule: Rule) -> Iterator[Event]:
        yield self._refused(Refusal(rule.code, rule.source), "malformed_request")

    def _refused(self, refusal: Refusal, reason: str) -> PeerViolated:
        self._refuse(refusal)
        return PeerViolated(refusal.message, refusal.reason or reason, status_hint=refusal.code.spec.status)

    def _refuse(self, refusal: Refusal) -> None:
        """The last answer of this connection."""
        if self._http is None:
            raise LocalProtocolError("there is no HTTP to refuse with")
        self.outbox.append(self._http.refuse(refusal_response(refusal, self._http.request_id, close=True)))
        self._finish()

    def _ws_events(self, ws: WebSocketDecoder, now: float) -> Iterator[Event]:
        for event in ws.events(now):
            match event:
                case PingReceived(payload=payload):
                    if self.phase is Phase.WEBSOCKET:
                        self.outbox.append(pong_frame(payload))
                    if self.outbox.overflowed:
                        self._drop()
                        yield PeerViolated("RFC 6455 5.5.2: pings without reading the pongs", "slow_reader")
                        return
                case PeerClosed():
                    if self.phase is Phase.WEBSOCKET:
                        self.outbox.append(close_frame(event.code, event.reason))
                    self._finish()
                    yield event
                    return
                case WsRule(source=source, code=code, reason=reason):
                    if self.phase is Phase.WEBSOCKET:
                        self.outbox.append(close_frame(code, source[:100]))
                    self._finish()
                    yield PeerViolated(source, reason, close_hint=int(code))
                    return
                case _:
                    if self.phase is Phase.WEBSOCKET:
                        yield event
        self._heard(ws, now)

    # --- deadlines ---------------------------------------------------------------------------------

    def handle_deadline(self, now: float) -> Iterator[Event]:
        """Act on the deadlines that have passed; early calls do nothing."""
        while (name := self._deadlines.take_expired(now)) is not None:
            expired = self._expired(name, now)
            if expired is not None:
                yield expired
            if self.phase is Phase.CLOSED:
                return

    def _expired(self, name: Deadline, now: float) -> DeadlineExpired | None:
        """None: the deadline did not end the connection."""
        reason: str | None = None
        status: int | None = None
        if name is Deadline.PING and self._ws is not None:
            if self._ws.missed_pongs < self._limits.max_missed_pongs:
                self._ws.missed_pongs += 1
                self.outbox.append(ping_frame())
                self._deadlines.set(Deadline.PING, now + self._limits.ping_interval_secs)
                return None
            self.outbox.append(close_frame(CloseCode.INTERNAL_ERROR, reasons.NO_PONG))
            self._finish()
            reason = "ping_timeout"
        elif name is Deadline.FRAME:
            self.outbox.append(close_frame(CloseCode.POLICY_VIOLATION, reasons.SLOW_FRAME))
            self._finish()
            reason = "frame_timeout"
        elif name is Deadline.LIFETIME:
            self.close(*self._lifetime_close, now)
        elif name in {Deadline.HEAD, Deadline.BODY} and self._http is not None and self._http.is_reading:
            refusal = Refusal(ErrorCode.TIMEOUT)
            self._refuse(refusal)
            reason, status = refusal.reason, refusal.code.spec.status
        elif name is Deadline.IDLE or name is Deadline.HEAD:
            self._finish()
        else:  # WRITE, CLOSE: the peer takes nothing or answers nothing
            self._drop()
            reason = "write_timeout" if name is Deadline.WRITE else None
        return DeadlineExpired(name.value, reason, status)

    def wrote(self, nbytes: int, now: float) -> None:
        """The peer's kernel took bytes after a refusal: the write deadline moves.

        On HTTP each byte buys its share of time only, so that nobody keeps a large answer waiting by taking it in crumbs;
        what waits for a WebSocket is bounded by its ring.
        """
        if nbytes <= 0 or Deadline.WRITE not in self._deadlines:
            return
        by = now + self._limits.write_timeout_secs
        if self._ws is None:
            by = min(by, self._deadlines[Deadline.WRITE] + nbytes / self._limits.min_write_bytes_per_sec)
        self._deadlines.set(Deadline.WRITE, by)

    def write_blocked(self, now: float) -> None:
        """The peer's kernel takes nothing for now."""
        if Deadline.WRITE not in self._deadlines and self.phase is not Phase.CLOSED:
            self._deadlines.set(Deadline.WRITE, now + self._limits.write_timeout_secs)
        elif Deadline.WRITE not in self._deadlines:
            self._deadlines.set(Deadline.WRITE, now + self._limits.close_timeout_secs)

    def write_idle(self, now: float) -> None:
        """Nothing waits any more."""
        self._deadlines.clear(Deadline.WRITE)

    def expire_at(self, deadline: float, code: int, reason: str) -> None:
        """At `deadline` (monotonic seconds) the WebSocket is closed with `code`: its credentials have ended."""
        if self.phase is not Phase.WEBSOCKET:
            raise LocalProtocolError(f"there is no WebSocket to end while {self.phase.value}")
        self._lifetime_close = (code, reason)
        self._deadlines.set(Deadline.LIFETIME, deadline)

    def _heard(self, ws: WebSocketDecoder, now: float) -> None:
        """Whole frames put the ping off; one that has begun must end in time, since no pong comes within it (RFC 6455 5.4)."""
        if self.phase is not Phase.WEBSOCKET:
            return
        if ws.take_heard():
            self._deadlines.clear(Deadline.FRAME)
            self._deadlines.set(Deadline.PING, now + self._limits.ping_interval_secs)
        if ws.in_frame and Deadline.FRAME not in self._deadlines:
            self._deadlines.set(Deadline.FRAME, now + self._limits.frame_timeout_secs)

    # --- commands ----------------------------------------------------------------------------------

    def respond(self, response: Response, now: float) -> None:
        """Answer the request that is waiting; refuses an upgrade too."""
        if self.phase is Phase.CLOSED:
            return  # the peer broke off meanwhile: nobody waits for this answer
        if self._http is None or self._request is None:
            raise LocalProtocolError("there is no request to answer")
        if self._is_last and not response.close:
            response = msgspec.structs.replace(response, close=True)
        data, alive = self._http.answer(response)
        self.outbox.append(data)
        self._request = None
        if not alive or self._wants_close:
            self._finish()
        else:
            self._deadlines.set(Deadline.IDLE, now + self._limits.idle_timeout_secs)

    def accept(self, now: float, subprotocol: str | None = None, headers: Headers = ()) -> None:
        """Accept the upgrade that is waiting: 101 is queued, and what came behind the handshake is WebSocket."""
        if self._http is None or self._request is None or not self._upgrade_pending:
            raise LocalProtocolError("there is no upgrade to accept")
        switched = self._http.switch(handshake.accept_token(self._request), subprotocol, headers)
        self._move("accept")
        self.outbox.append(switched)
        self._ws = WebSocketDecoder(self._limits)
        self._ws.receive(self._http.take_rest())
        self._http = None  # an idle socket keeps neither h11 nor its request
        self._request = None
        self._deadlines.clear_all()
        self._deadlines.set(Deadline.PING, now + self._limits.ping_interval_secs)

    def send_text(self, payload: str | bytes, now: float) -> None:
        """Queue one text message; bytes must be UTF-8."""
        self._send(text_frame(payload.encode() if isinstance(payload, str) else payload))

    def send_bytes(self, payload: bytes, now: float) -> None:
        """Queue one binary message."""
        self._send(binary_frame(payload))

    def _send(self, frame: bytes) -> None:
        if self.phase is not Phase.WEBSOCKET:
            raise LocalProtocolError(f"no message can be sent while {self.phase.value}")
        self.outbox.append(frame)
        if self.outbox.overflowed:
            self._drop()

    def close(self, code: int, reason: str, now: float) -> None:
        """Begin an orderly end. Safe to repeat.

        A WebSocket gets a close frame. On HTTP a request that has begun is still answered, as the last one; without one
        the connection ends when what waits is sent. `code` and `reason` are for WebSockets.
        """
        if self.phase is Phase.WEBSOCKET:
            self.outbox.append(close_frame(code, reason))
            self._move("close")
            self._deadlines.clear_all_but(Deadline.WRITE)
            self._deadlines.set(Deadline.CLOSE, now + self._limits.close_timeout_secs)
        elif self._http is not None and self.phase is Phase.HTTP:
            if self._request is None and not self._http.is_reading:
                self._finish()
            else:
                self._is_last = True

    # --- ends --------------------------------------------------------------------------------------

    def _finish(self) -> None:
        """Send what waits, then close."""
        self._end()
        self._wants_close = True

    def _drop(self) -> None:
        """Close at once."""
        self._end()
        self._wants_close = self._close_now = True

    def _end(self) -> None:
        self._move("end")
        self._request = None
        self._deadlines.clear_all_but(Deadline.WRITE)  # a peer that takes nothing is still given up
        if self._http is not None:
            self._http.end()
