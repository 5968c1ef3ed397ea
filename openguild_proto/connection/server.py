"""ServerConnection: HTTP/1.1, then perhaps WebSocket; one object owns both halves of a connection.

The call contract, for every driver:

1. feed: `receive_data`, `receive_eof` or `handle_deadline`. Each does its work before it returns, and returns the
   events that can be given now;
2. answer them: `respond` to a RequestReceived, `accept` or `respond` to a WebSocketRequested, now or later. What comes
   behind a request, or behind messages and asks for a reply of its own, waits for the answers: call `next_events` and do
   the same with what it returns, until it returns nothing;
3. send: `data_to_send()` (everything) or `outbox.peek`/`outbox.consume` (what the socket takes);
4. look at `wants` and `next_deadline`, then go on.

Out of turn: where `next_events` was forgotten, the next `receive_data` or `receive_eof` reads what is left, and nothing is
lost until then: while the caller has a request to answer, or requests to ask `next_events` for, no deadline of the peer's
runs. Commands in the wrong phase raise LocalProtocolError and change nothing.

Getters: `phase`, `is_websocket`, `is_open`, `awaits_response`, `is_over`, `is_write_blocked`, `wants`, `next_deadline`.
Commands: `respond`, `accept`, `send_text`, `send_bytes`, `close`, `expire_at`, `wrote`, `write_blocked`, `write_idle`,
`write_ended`. The machine itself is two tables (phases.py).
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter

import msgspec

from openguild_proto.connection import steps
from openguild_proto.connection.deadlines import Deadline, Deadlines
from openguild_proto.connection.decoder import Decoder
from openguild_proto.connection.outbox import Outbox
from openguild_proto.connection.phases import MAY_RUN, PHASES, TRANSITIONS, Input, Phase, Reading, Wants
from openguild_proto.connection.steps import Step
from openguild_proto.errors import LocalProtocolError
from openguild_proto.events import BytesReceived, DeadlineExpired, Event, PeerGone, PeerViolated, TextReceived
from openguild_proto.http import strictness
from openguild_proto.http.connection import HttpConnection
from openguild_proto.http.headers import HeaderPolicy
from openguild_proto.http.message import Headers, Request, Response
from openguild_proto.http.reader import RequestReader
from openguild_proto.limits import Limits
from openguild_proto.ws import handshake, reasons
from openguild_proto.ws.close_codes import CloseCode
from openguild_proto.ws.connection import PingReceived, WebSocketDecoder
from openguild_proto.ws.frames import binary_frame, close_frame, ping_frame, pong_frame, text_frame

DEFAULT_LIMITS = Limits()
DEFAULT_POLICY = HeaderPolicy()
_SECS: dict[Deadline, Callable[[Limits], float]] = {
    Deadline.HEAD: attrgetter("head_timeout_secs"),
    Deadline.BODY: attrgetter("body_timeout_secs"),
    Deadline.IDLE: attrgetter("idle_timeout_secs"),
    Deadline.PING: attrgetter("ping_interval_secs"),
    Deadline.CLOSE: attrgetter("close_timeout_secs"),
    Deadline.LINGER: attrgetter("linger_timeout_secs"),
}  # those that a phase sets


class ServerConnection:
    """One accepted byte stream. `now`: monotonic seconds. `random_bytes(n)`: for request ids. `peer_address`: no port.

    `max_body_of(method, path)`: bytes that a request's body may have; without it `limits.max_body_bytes` holds alone.
    """

    __slots__ = ("_deadlines", "_decoder", "_http", "_lifetime_close", "_limits", "_policy", "_ws", "outbox", "phase")

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
        self.phase = Phase.NEW
        self.outbox = Outbox(limits.max_outbox_bytes)
        self._limits = limits
        self._policy = policy
        reader = RequestReader(limits, policy, random_bytes, peer_address, max_body_of)
        self._decoder: Decoder[object] = reader
        self._http: HttpConnection | None = HttpConnection(reader, policy)  # until the upgrade
        self._ws: WebSocketDecoder | None = None  # from the upgrade on
        self._deadlines = Deadlines()
        self._deadlines.set(Deadline.HEAD, now + limits.head_timeout_secs)
        self._lifetime_close: tuple[int, str] = (CloseCode.TOKEN_ENDED, reasons.EXPIRED)

    def _require(self, step: Input) -> Phase:
        """The phase that `step` leads to. Raises LocalProtocolError where it is out of turn."""
        target = TRANSITIONS[self.phase].get(step)
        if target is None:
            raise LocalProtocolError(f"{step.value} is out of turn: the connection is {self.phase.value}")
        return target

    def _move(self, step: Input, now: float) -> None:
        """Into the phase that `step` leads to; the only place where the phase changes."""
        target = self._require(step)
        if target is self.phase:
            return
        self.phase = target
        row = PHASES[target]
        self._deadlines.clear_all_but(MAY_RUN[target])
        if row.own is not None and row.own not in self._deadlines:
            self._deadlines.set(row.own, now + _SECS[row.own](self._limits))
        if row.reading is Reading.DROPPED and self._http is not None:
            self._http.reader.take_rest()

    # --- getters -----------------------------------------------------------------------------------

    @property
    def is_websocket(self) -> bool:
        """True from `accept` on."""
        return self._http is None

    @property
    def is_open(self) -> bool:
        """A WebSocket to which messages may still be sent: nothing follows a close frame (RFC 6455 5.5.1)."""
        return self.phase is Phase.OPEN

    @property
    def awaits_response(self) -> bool:
        """A whole request is with the caller, who has not answered it."""
        return PHASES[self.phase].reading is Reading.KEPT

    @property
    def is_over(self) -> bool:
        """Nothing that the peer sends is interpreted any more."""
        return PHASES[self.phase].reading is Reading.DROPPED

    @property
    def is_write_blocked(self) -> bool:
        """The peer takes nothing, and `write_blocked` has said so."""
        return Deadline.WRITE in self._deadlines

    @property
    def wants(self) -> Wants:
        """What the owner of the socket is to do now."""
        wants = PHASES[self.phase].wants
        if wants is Wants.KEEP or wants is Wants.ABORT or not self.outbox:
            return wants
        return Wants.KEEP

    def next_deadline(self) -> float | None:
        """Monotonic seconds at which `handle_deadline` has something to do."""
        return self._deadlines.next()

    def data_to_send(self) -> list[bytes]:
        """Take everything that waits to be sent."""
        return self.outbox.take()

    # --- feeding -----------------------------------------------------------------------------------

    def receive_data(self, data: bytes, now: float) -> list[Event]:
        """Bytes from the peer, cut anywhere; what they complete. Raises LocalProtocolError after `receive_eof`."""
        reading = PHASES[self.phase].reading
        if reading is Reading.DROPPED:
            return []
        if self.phase is Phase.HALF_CLOSED or self.phase is Phase.HALF_CLOSED_RESPONSE:
            raise LocalProtocolError("the peer has ended its side: no bytes can come behind that")
        http = self._http
        if http is not None and reading is Reading.KEPT:
            if http.reader.unread + len(data) > self._limits.max_pipelined_bytes:
                return self._take(steps.of_violation(http, strictness.PIPELINE), now)
            http.reader.feed(data)
            return []
        self._decoder.feed(data)
        return self._read(reading, now)

    def next_events(self, now: float) -> list[Event]:
        """What can be given since the last events were answered; [] when more must come from the peer or the caller."""
        return [] if self.phase is Phase.IDLE else self._read(PHASES[self.phase].reading, now)

    def _read(self, reading: Reading, now: float) -> list[Event]:
        if reading is Reading.REQUESTS and self._http is not None:
            return self._next_request(self._http, now)
        if reading is Reading.FRAMES and self._ws is not None:
            return self._next_messages(self._ws, now)
        return []

    def receive_eof(self, now: float) -> list[Event]:
        """The peer ended its side. Whole requests that came before are still given and answered."""
        events = self.next_events(now)
        self._move(Input.EOF, now)
        events.append(PeerGone())
        return events

    # --- requests ----------------------------------------------------------------------------------

    def _next_request(self, http: HttpConnection, now: float) -> list[Event]:
        """One at most: the next one waits for its answer."""
        item = http.reader.next_item(now)
        if item is not None:
            return self._take(steps.of_request(http, item, self._policy), now)
        before = self.phase
        self._move(steps.MISSING[http.reader.awaits], now)
        if self.phase is not before and self.phase in {Phase.BODY, Phase.LAST_BODY}:
            self.outbox.append(http.go_on())
        return []

    def _take(self, step: Step, now: float) -> list[Event]:
        self.outbox.append(step.reply)
        self._move(step.input, now)
        return [] if step.event is None else [step.event]

    def respond(self, response: Response, now: float) -> None:
        """Answer the request that is waiting; refuses an upgrade too.

        Where the connection has ended meanwhile nobody waits for the answer, and nothing happens.
        """
        http, row = self._http, PHASES[self.phase]
        if row.reading is Reading.DROPPED:
            return
        if http is None or row.reading is not Reading.KEPT:
            raise LocalProtocolError("there is no request to answer")
        goes_on = Input.RESPOND in TRANSITIONS[self.phase]
        if not (goes_on or response.close):
            response = msgspec.structs.replace(response, close=True)
        data, alive = http.respond(response)
        self.outbox.append(data)
        if not alive:
            self._move(Input.RESPOND_LAST, now)
        else:
            self._move(Input.RESPOND_UNREAD if http.reader.unread else Input.RESPOND, now)

    def accept(self, now: float, subprotocol: str | None = None, headers: Headers = ()) -> None:
        """Accept the upgrade that is waiting: 101 is queued, and what came behind the handshake is WebSocket.

        Raises LocalProtocolError too where the connection has ended meanwhile, or the peer its side: no stream can begin.
        """
        self._require(Input.ACCEPT)
        http = self._http
        request: Request | None = http.reader.request if http is not None else None
        if http is None or request is None:
            raise LocalProtocolError("there is no upgrade to accept")
        self.outbox.append(http.switch(handshake.accept_token(request), subprotocol, headers))
        self._decoder = self._ws = WebSocketDecoder(self._limits)
        self._decoder.feed(http.reader.take_rest())
        self._http = None  # an idle socket keeps neither h11 nor its request
        self._move(Input.ACCEPT, now)

    # --- messages ----------------------------------------------------------------------------------

    def _next_messages(self, ws: WebSocketDecoder, now: float) -> list[Event]:
        """Whole messages, up to a frame that is answered here: that answer goes behind the caller's."""
        events: list[Event] = []
        while (item := ws.next_item(now)) is not None:
            match item:
                case TextReceived() | BytesReceived():
                    if self.phase is Phase.OPEN:
                        events.append(item)
                case _ if events:
                    ws.put_back(item)
                    return events
                case PingReceived(payload=payload):
                    if self.phase is Phase.OPEN:
                        self.outbox.append(pong_frame(payload))
                        if self.outbox.overflowed:
                            self._move(Input.OVERFLOW, now)
                            return [PeerViolated("RFC 6455 5.5.2: pings without reading the pongs", "slow_reader")]
                case _:
                    return self._take(steps.of_last_frame(item, self.phase), now)
        self._heard(ws, now)
        return events

    def _heard(self, ws: WebSocketDecoder, now: float) -> None:
        """Whole frames put the ping off; one that has begun must end in time, since no pong comes within it (RFC 6455 5.4)."""
        if self.phase is not Phase.OPEN:
            return
        if ws.take_heard():
            self._deadlines.clear(Deadline.FRAME)
            self._deadlines.set(Deadline.PING, now + self._limits.ping_interval_secs)
        if ws.in_frame and Deadline.FRAME not in self._deadlines:
            self._deadlines.set(Deadline.FRAME, now + self._limits.frame_timeout_secs)

    def send_text(self, payload: str | bytes, now: float) -> None:
        """Queue one text message; bytes must be UTF-8."""
        self._send(text_frame(payload.encode() if isinstance(payload, str) else payload), now)

    def send_bytes(self, payload: bytes, now: float) -> None:
        """Queue one binary message."""
        self._send(binary_frame(payload), now)

    def _send(self, frame: bytes, now: float) -> None:
        self._move(Input.SEND, now)
        self.outbox.append(frame)
        if self.outbox.overflowed:
            self._move(Input.OVERFLOW, now)

    def expire_at(self, deadline: float, code: int, reason: str) -> None:
        """At `deadline` (monotonic seconds) the WebSocket is closed with `code`: its credentials have ended."""
        self._require(Input.EXPIRE_AT)
        self._lifetime_close = (code, reason)
        self._deadlines.set(Deadline.LIFETIME, deadline)

    def close(self, code: int, reason: str, now: float) -> None:
        """Begin an orderly end. Safe to repeat.

        A WebSocket gets a close frame. On HTTP a request that has begun is still answered, as the last one; without one
        the connection ends when what waits is sent. `code` and `reason` are for WebSockets.
        """
        if self.phase is Phase.OPEN:
            self.outbox.append(close_frame(code, reason))
        self._move(Input.CLOSE, now)

    # --- deadlines and the write side --------------------------------------------------------------

    def handle_deadline(self, now: float) -> list[Event]:
        """Act on the deadlines that have passed; early calls do nothing."""
        events = self._read(Reading.FRAMES, now) if PHASES[self.phase].reading is Reading.FRAMES else []
        while (name := self._deadlines.take_expired(now)) is not None:
            if name is Deadline.PING and self._pinged(now):
                continue
            if name is Deadline.LIFETIME:
                self.close(*self._lifetime_close, now)
                events.append(DeadlineExpired(name.value))
                continue
            events += self._take(steps.of_deadline(name, self.phase, self._http), now)
            if self.is_over:
                break
        return events

    def _pinged(self, now: float) -> bool:
        """Send a ping; False: as many as may be are unanswered."""
        ws = self._ws
        if ws is None or ws.missed_pongs >= self._limits.max_missed_pongs:
            return False
        ws.missed_pongs += 1
        self.outbox.append(ping_frame())
        self._deadlines.set(Deadline.PING, now + self._limits.ping_interval_secs)
        return True

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
        if Deadline.WRITE in self._deadlines or Deadline.WRITE not in PHASES[self.phase].others:
            return
        limits = self._limits
        self._deadlines.set(
            Deadline.WRITE, now + (limits.close_timeout_secs if self.is_over else limits.write_timeout_secs)
        )

    def write_idle(self, now: float) -> None:
        """Nothing waits any more."""
        self._deadlines.clear(Deadline.WRITE)

    def write_ended(self, now: float) -> None:
        """The write side of the socket is shut, as `wants` asked: the peer's end is awaited for a moment.

        Closing at once with unread input would make the kernel send RST, which destroys an answer in flight (RFC 9112 9.6).
        """
        if self.outbox:
            raise LocalProtocolError("bytes wait to be sent")
        self._move(Input.WRITE_ENDED, now)
