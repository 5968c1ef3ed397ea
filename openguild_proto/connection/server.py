"""ServerConnection: HTTP/1.1, and WebSocket after an upgrade.

The call contract, for every driver:

1. feed: `receive_data`, `receive_eof` or `handle_deadline`. Each returns the events that are ready;
2. respond: `respond` to a RequestReceived, `accept` or `respond` to a WebSocketRequested, now or later. The data after a
   request, and a close frame after messages, wait until you have replied: call `next_events` and handle its events in the
   same way, until it returns none;
3. send: `data_to_send()` (everything) or `outbox.peek`/`outbox.consume` (as much as the socket accepts), before `next_events`
   returns another request: nothing else bounds the responses that a peer does not read;
4. check `wants` and `next_deadline`, and continue.

If `next_events` is not called, the next `receive_data` continues, and `receive_eof` reads the rest; nothing is lost. No deadline
for the peer runs while a request waits for a response, or `next_events` has events. Commands in the wrong phase, and values that
cannot be sent, raise LocalProtocolError and change nothing. A callback that raises aborts, except in `respond` and `accept`.

Getters: `phase`, `is_websocket`, `is_open`, `awaits_response`, `is_over`, `is_write_blocked`, `unfinished_body_bytes`,
`client_address`, `wants`, `next_deadline`. Commands: `respond`, `accept`, `send_text`, `send_bytes`, `close`, `expire_at`, `wrote`,
`write_blocked`, `write_idle`, `write_ended`. The state machine is two tables (phases.py).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import msgspec

from openguild_proto.connection import steps
from openguild_proto.connection.deadlines import SECS, Deadline
from openguild_proto.connection.decoder import Decoder
from openguild_proto.connection.outbox import Outbox
from openguild_proto.connection.phases import MAY_RUN, PHASES, TRANSITIONS, Input, Phase, Reading, Wants, not_allowed
from openguild_proto.connection.steps import Step
from openguild_proto.deadlines import Deadlines, require_time
from openguild_proto.errors import LocalProtocolError
from openguild_proto.events import BytesReceived, DeadlineExpired, Event, PeerGone, PeerViolated, TextReceived
from openguild_proto.http import strictness
from openguild_proto.http.connection import HttpConnection
from openguild_proto.http.fast_path import PLAIN
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
EXPIRED: tuple[int, str] = (CloseCode.TOKEN_ENDED, reasons.EXPIRED)


class ServerConnection:
    """One accepted byte stream.

    - `now`: the time, in monotonic seconds, here and in every method.
    - `random_bytes(n)`: returns n random bytes, such as `secrets.token_bytes`; for request ids.
    - `limits`, `policy`: bounds, and the headers of responses.
    - `peer_address`: of the socket, without port.
    - `max_body_of(method, path)`: the limit of a route, called for a body over `limits.unquestioned_body_bytes`, 32 KiB by default.

    Attributes: `phase`; `outbox`, the queued bytes: `append(data)` (prepared frames), `peek(max_bytes)`, `consume(nbytes)`, `len`.
    """

    __slots__ = (
        "_codes", "_deadlines", "_decoder", "_due_close", "_http", "_limits", "_policy", "_ws", "outbox", "phase",
    )  # fmt: skip

    def __init__(
        self, *, now: float, random_bytes: Callable[[int], bytes], limits: Limits = DEFAULT_LIMITS,
        policy: HeaderPolicy = DEFAULT_POLICY, peer_address: str = "", max_body_of: Callable[[str, str], int] | None = None,
    ) -> None:  # fmt: skip
        self.phase = Phase.NEW
        self.outbox = Outbox(limits.max_outbox_bytes)
        self._limits = limits
        self._policy = policy
        reader = RequestReader(limits, policy, random_bytes, peer_address, max_body_of)
        self._decoder: Decoder[object] = reader
        self._http: HttpConnection | None = HttpConnection(reader, policy)  # until the upgrade
        self._ws: WebSocketDecoder | None = None  # from the upgrade on
        self._deadlines: Deadlines[Deadline] = Deadlines()
        self._deadlines.set(Deadline.HEAD, now + limits.head_timeout_secs)
        self._codes = steps.USUAL_CODES
        self._due_close = EXPIRED  # code and reason at the lifetime's end, or once an upgrade is accepted after `close`

    def _require(self, step: Input) -> Phase:
        """Return the phase that `step` leads to. Raises LocalProtocolError if it is not allowed now."""
        target = TRANSITIONS[self.phase].get(step)
        if target is None:
            raise LocalProtocolError(not_allowed(step, self.phase))
        return target

    def _move(self, step: Input, now: float) -> None:
        """Change to the phase that `step` leads to; nothing else changes the phase."""
        target = TRANSITIONS[self.phase].get(step) or self._require(step)
        if target is self.phase:
            return
        self.phase = target
        row, deadlines = PHASES[target], self._deadlines
        deadlines.stop_all_but(MAY_RUN[target])
        own = row.own
        if own is not None and own not in deadlines:
            deadlines[own] = now + SECS[own](self._limits)
        if row.reading is Reading.DROPPED and self._http is not None:
            self._http.reader.take_rest()

    # --- getters -----------------------------------------------------------------------------------

    @property
    def is_websocket(self) -> bool:
        """True from `accept` on."""
        return self._http is None

    @property
    def is_open(self) -> bool:
        """Whether messages may be sent: a WebSocket on which no close frame was sent or received (RFC 6455 5.5.1)."""
        return self.phase is Phase.OPEN

    @property
    def awaits_response(self) -> bool:
        """Whether the caller has a request to respond to."""
        return PHASES[self.phase].reading is Reading.KEPT

    @property
    def is_over(self) -> bool:
        """Whether the peer's bytes are ignored."""
        return PHASES[self.phase].reading is Reading.DROPPED

    @property
    def is_write_blocked(self) -> bool:
        """Whether `write_blocked` was called and not all bytes were written since."""
        return Deadline.WRITE in self._deadlines

    @property
    def unfinished_body_bytes(self) -> int:
        """The buffered bytes of an incomplete request body."""
        return 0 if self._http is None else self._http.reader.body_bytes

    @property
    def client_address(self) -> str:
        """The address of the last request's client, also through a trusted proxy; at first the peer's, "" for a WebSocket."""
        return "" if self._http is None else self._http.reader.client_address

    @property
    def wants(self) -> Wants:
        """The current duty of the socket's owner."""
        wants = PHASES[self.phase].wants
        return Wants.KEEP if self.outbox and wants is not Wants.ABORT else wants

    def next_deadline(self) -> float | None:
        """Return the monotonic time at which to call `handle_deadline`, None if no deadline is running."""
        return self._deadlines.next()

    def data_to_send(self) -> list[bytes]:
        """Remove and return all queued bytes."""
        return self.outbox.take()

    # --- feeding -----------------------------------------------------------------------------------

    def receive_data(self, data: bytes, now: float) -> list[Event]:
        """Process bytes of the peer, in pieces of any size. Return the events. Raises LocalProtocolError after `receive_eof`."""
        reading = PHASES[self.phase].reading
        if reading is Reading.DROPPED:
            return []
        if self.phase is Phase.HALF_CLOSED or self.phase is Phase.HALF_CLOSED_RESPONSE:
            raise LocalProtocolError("the peer has shut its side: no bytes can follow")
        http = self._http
        if http is not None and reading is Reading.KEPT:
            if data and http.reader.unread + len(data) > self._limits.max_pipelined_bytes:
                return self._take(lambda: steps.of_violation(http, strictness.PIPELINE), now)
            http.reader.feed(data)
            return []
        self._decoder.feed(data)
        return self._read(reading, now)

    def next_events(self, now: float) -> list[Event]:
        """Return the events that are ready after responses. []: more bytes or a response are needed."""
        return [] if self.phase is Phase.IDLE else self._read(PHASES[self.phase].reading, now)

    def _read(self, reading: Reading, now: float) -> list[Event]:
        if reading is Reading.REQUESTS and self._http is not None:
            return self._next_request(self._http, now)
        if reading is Reading.FRAMES and self._ws is not None:
            return self._next_messages(self._ws, now)
        return []

    def receive_eof(self, now: float) -> list[Event]:
        """Note that the peer has shut its side (`recv` returned nothing). Whole requests before that are still processed."""
        events = more = self.next_events(now)
        while more and self._ws is not None:
            more = self.next_events(now)
            events += more
        self._move(Input.EOF, now)
        return [*events, PeerGone()]

    # --- requests ----------------------------------------------------------------------------------

    def _next_request(self, http: HttpConnection, now: float) -> list[Event]:
        """Return at most one request: the next one waits for its response."""
        try:
            item = http.reader.next_item(now)
        except BaseException:  # a callback raised: the body would be read as the next request
            self._move(Input.CALLBACK_FAILED, now)
            raise
        if isinstance(item, Request) and http.reader.exchange is PLAIN:  # it does not request an upgrade
            self._move(Input.REQUEST, now)
            return [steps.received(item)]
        if item is not None:
            return self._take(lambda: steps.of_request(http, item, self._policy), now)
        before = self.phase
        self._move(steps.MISSING[http.reader.awaits], now)
        if self.phase is not before and self.phase in {Phase.BODY, Phase.LAST_BODY}:
            self.outbox.append(http.continue_response())
        return []

    def _take(self, step_of: Callable[[], Step], now: float) -> list[Event]:
        try:
            step = step_of()
        except BaseException:  # a callback raised: refused bytes would be read, and a deadline has stopped
            self._move(Input.CALLBACK_FAILED, now)
            raise
        self.outbox.append(step.reply)
        self._move(step.input, now)
        return [] if step.event is None else [step.event]

    def respond(self, response: Response, now: float) -> None:
        """Queue the response to the current request, or refuse its upgrade. Does nothing if the connection has ended.

        Raises LocalProtocolError: no request awaits a response, or its status or a header cannot be sent.
        """
        http, row = self._http, PHASES[self.phase]
        if row.reading is Reading.DROPPED:
            return
        if http is None or row.reading is not Reading.KEPT:
            raise LocalProtocolError("there is no request to respond to")
        if not (response.close or Input.RESPOND in TRANSITIONS[self.phase]):
            response = msgspec.structs.replace(response, close=True)
        data, alive = http.respond(response)
        self.outbox.append(data)
        goes_to = Input.RESPOND_UNREAD if http.reader.unread else Input.RESPOND
        self._move(goes_to if alive else Input.RESPOND_LAST, now)

    def accept(
        self, now: float, subprotocol: str | None = None, headers: Headers = (), *,
        codes: steps.Codes = steps.USUAL_CODES, limits: Limits | None = None,
    ) -> None:  # fmt: skip
        """Accept the upgrade: queue 101, and read the bytes after the handshake as WebSocket.

        `codes`: the subprotocol's own close codes for `frame_rate_limit`, `frame_timeout` and `ping_timeout`, if it has any.
        `limits`: the subprotocol's own limits from now on, if it has any. After `close` the WebSocket is closed at once.
        Raises LocalProtocolError: there is no upgrade, the peer has ended or not offered `subprotocol`, or a value cannot be sent.
        """
        self._require(Input.ACCEPT)
        for code in codes.values():
            close_frame(code)  # raises if it cannot be sent
        http = self._http
        request: Request | None = http.reader.request if http is not None else None
        if http is None or request is None:
            raise LocalProtocolError("there is no upgrade to accept")
        chosen = handshake.chosen(subprotocol, request)
        self.outbox.append(http.switch(handshake.accept_token(request), chosen, headers))
        self._limits = limits or self._limits
        self.outbox.max_bytes = self._limits.max_outbox_bytes
        self._decoder = self._ws = WebSocketDecoder(self._limits)
        if rest := http.reader.take_rest():
            self._decoder.feed(rest)
        self._codes = codes
        self._http = None  # an idle socket keeps neither h11 nor its request
        self._move(Input.ACCEPT, now)
        if self.phase is Phase.CLOSING:
            self.outbox.append(close_frame(*self._due_close))

    # --- messages ----------------------------------------------------------------------------------

    def _next_messages(self, ws: WebSocketDecoder, now: float) -> list[Event]:
        """Return messages up to a frame that needs a reply, which must follow the caller's own messages."""
        require_time(now)  # before a message is removed, which would be lost
        events: list[Event] = []
        while (item := ws.next_item(now)) is not None:
            match item:
                case TextReceived() | BytesReceived():
                    if self.phase is Phase.OPEN:
                        events.append(item)
                case _ if events:
                    ws.put_back(item)
                    break
                case PingReceived(payload=payload):
                    if self.phase is Phase.OPEN:
                        self.outbox.append(pong_frame(payload))
                        if self.outbox.overflowed:
                            self._move(Input.OVERFLOW, now)
                            return [PeerViolated("RFC 6455 5.5.2: pings without reading the pongs", "slow_reader")]
                case _:
                    return self._take(lambda: steps.of_last_frame(item, self.phase, self._codes), now)
        self._frame_arrived(ws, now)
        return events

    def _frame_arrived(self, ws: WebSocketDecoder, now: float) -> None:
        """Delay the ping after whole frames, and limit the time of an unfinished one: no pong can interrupt it (RFC 6455 5.4)."""
        if self.phase is not Phase.OPEN:
            return
        if ws.take_frame_arrived():
            self._deadlines.stop(Deadline.FRAME)
            self._deadlines.set(Deadline.PING, now + self._limits.ping_interval_secs)
        if ws.in_frame and Deadline.FRAME not in self._deadlines:
            self._deadlines.set(Deadline.FRAME, now + self._limits.frame_timeout_secs)

    def send_text(self, payload: str | bytes, now: float) -> None:
        """Queue one text message; bytes must be UTF-8, which is not checked. Raises as `send_bytes`, and UnicodeEncodeError."""
        self._send(text_frame(payload.encode() if isinstance(payload, str) else payload), now)

    def send_bytes(self, payload: bytes, now: float) -> None:
        """Queue one binary message. Raises LocalProtocolError if the WebSocket is not open."""
        self._send(binary_frame(payload), now)

    def _send(self, frame: bytes, now: float) -> None:
        self._move(Input.SEND, now)
        self.outbox.append(frame)
        if self.outbox.overflowed:
            self._move(Input.OVERFLOW, now)

    def expire_at(self, deadline: float, code: int, reason: str) -> None:
        """Close the WebSocket with `code` at `deadline` (monotonic seconds), when its credentials expire. Raises as `close`."""
        self._require(Input.EXPIRE_AT)
        close_frame(code, reason)  # raises if it cannot be sent
        self._deadlines.set(Deadline.LIFETIME, deadline)
        self._due_close = EXPIRED if (code, reason) == EXPIRED else (code, reason)

    def close(self, code: int, reason: str, now: float) -> None:
        """Begin an orderly close. Safe to repeat. Raises LocalProtocolError for a code or a reason that cannot be sent.

        A WebSocket sends a close frame with `code` and `reason`, at most 123 bytes of UTF-8. On HTTP, a request that has begun to
        arrive is still processed as the last one; otherwise the connection ends when the queued bytes are sent.
        """
        frame = close_frame(code, reason)
        if self.phase is Phase.OPEN:
            self.outbox.append(frame)
        self._due_close = (code, reason) if self._due_close is EXPIRED else self._due_close
        self._move(Input.CLOSE, now)

    # --- deadlines and the write side --------------------------------------------------------------

    def handle_deadline(self, now: float) -> list[Event]:
        """Act on the deadlines that have passed; early calls do nothing."""
        events = self._read(Reading.FRAMES, now) if PHASES[self.phase].reading is Reading.FRAMES else []
        while (name := self._deadlines.take_expired(now)) is not None:
            if name is Deadline.PING and self._pinged(now):
                continue
            if name is Deadline.LIFETIME:
                self.close(*self._due_close, now)
                events.append(DeadlineExpired(name.value))
                continue
            events += self._take(partial(steps.of_deadline, name, self.phase, self._http, self._codes), now)
            if self.is_over:
                break
        return events

    def _pinged(self, now: float) -> bool:
        """Send a ping. Return False if the limit of missed pongs is reached."""
        ws = self._ws
        if ws is None or ws.missed_pongs >= self._limits.max_missed_pongs:
            return False
        ws.missed_pongs += 1
        self.outbox.append(ping_frame())
        self._deadlines.set(Deadline.PING, now + self._limits.ping_interval_secs)
        return True

    def wrote(self, nbytes: int, now: float) -> None:
        """Extend the write deadline after a blocked write made progress.

        On HTTP in proportion to the bytes, so that a slow reader cannot hold a large response. A WebSocket's queue is bounded.
        """
        if nbytes <= 0 or Deadline.WRITE not in self._deadlines:
            return
        by = now + self._limits.write_timeout_secs
        if self._ws is None:
            by = min(by, self._deadlines[Deadline.WRITE] + nbytes / self._limits.min_write_bytes_per_sec)
        self._deadlines.set(Deadline.WRITE, by)

    def write_blocked(self, now: float) -> None:
        """Note that a write to the socket blocked."""
        if Deadline.WRITE in self._deadlines or Deadline.WRITE not in PHASES[self.phase].others:
            return
        secs = self._limits.close_timeout_secs if self.is_over else self._limits.write_timeout_secs
        self._deadlines.set(Deadline.WRITE, now + secs)

    def write_idle(self, now: float) -> None:
        """Note that no bytes are queued any more."""
        self._deadlines.stop(Deadline.WRITE)

    def write_ended(self, now: float) -> None:
        """Note that the write side is shut down, as `wants` required, and wait briefly until the peer ends.

        Closing with unread input makes the kernel send RST, which can destroy a response in flight (RFC 9112 9.6).
        """
        if self.outbox:
            raise LocalProtocolError("bytes are queued")
        self._move(Input.WRITE_ENDED, now)
