"""GatewayClient: the client side of the gateway, across many connections (PROTOCOL 15.9).

Its inputs and outputs are messages, so any WebSocket library can drive it. The call contract, for every driver:

1. feed: `start`, `connected`, `received`, `disconnected`, `handle_deadline`, or a command of the caller;
2. carry out: take `next_event()` until it returns None; `Connect` and `Disconnect` are among the events;
3. send: all of `messages_to_send()`;
4. check `next_deadline`, and continue.

`follow`, `unfollow`, `send`, `set_token` and `close` may be called in any phase. `to_dict` stores `places`, for a later `restore`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from itertools import count

from openguild_proto.deadlines import Deadlines
from openguild_proto.errors import ErrorCode, LocalProtocolError
from openguild_proto.gateway import client_events as told
from openguild_proto.gateway.client_commands import LONE_SURROGATE, PendingCommands, sendable
from openguild_proto.gateway.client_logs import TEMPORARY, Arrival, Faults, FollowedLogs, ResumePosition
from openguild_proto.gateway.client_phases import (
    CLIENT_PHASES,
    CLIENT_TRANSITIONS,
    ClientDeadline,
    ClientInput,
    ClientPhase,
)
from openguild_proto.gateway.close_codes import AfterClose, GatewayClose, after_close
from openguild_proto.gateway.encoding import Encoding, MalformedFrame, WrongKind
from openguild_proto.gateway.frames import (
    AnyCommand,
    Auth,
    AuthExpiring,
    ClientFrame,
    Drain,
    Eph,
    Err,
    Ev,
    Gone,
    Heartbeat,
    Hello,
    Lagging,
    Live,
    Ok,
    Ready,
    ServerFrame,
    SubOk,
    Unsub,
)
from openguild_proto.limits import CLIENT_HANDSHAKE_SECS, PAGE_RETRY_SECS, SERVER_SILENT_HEARTBEATS
from openguild_proto.policy.backoff import Backoff

_GIVEN_UP = {ClientDeadline.ANSWER: "no response in time", ClientDeadline.SILENCE: "the server does not respond"}
_AGAIN = -1  # instead of the ref of an `auth` that is sent again


class GatewayClient:
    """A client. `jitter()`: in [0, 1). `random_bytes(n)`: for keys. `now`: monotonic seconds. `log`: such as `guild:ID`."""

    def __init__(
        self, encoding: Encoding, *, jitter: Callable[[], float], random_bytes: Callable[[int], bytes]
    ) -> None:
        self.phase = ClientPhase.IDLE
        self.encoding = encoding
        self._logs = FollowedLogs()
        self._commands = PendingCommands(random_bytes)
        self._backoff = Backoff(jitter)
        self._deadlines: Deadlines[ClientDeadline] = Deadlines()
        self._events: deque[told.ClientEvent] = deque()
        self._messages: list[str | bytes] = []
        self._refs: Iterator[int] = count(1)
        self._token, self._opened_at = "", 0.0
        self._renewal, self._renews_again = 0, False  # ref of an unanswered `auth` or 0; a token waits for its answer
        self._heartbeat_secs, self._frame_bytes = 0.0, 0  # from `hello`; maximum size of a message

    # --- getters -------------------------------------------------------------------------------------

    def next_event(self) -> told.ClientEvent | None:
        """Remove and return the next event, None if there is none."""
        return self._events.popleft() if self._events else None

    def messages_to_send(self) -> list[str | bytes]:
        """Remove and return all messages: `str` for text, `bytes` for binary. Logs followed since the last call share frames."""
        self._ask_for_logs()
        messages, self._messages = self._messages, []
        return messages

    def next_deadline(self) -> float | None:
        """Return the monotonic time at which to call `handle_deadline`, None if no deadline is running."""
        return self._deadlines.next()

    @property
    def places(self) -> dict[str, ResumePosition]:
        """The last delivered position of each log."""
        return self._logs.places()

    def follows(self, log: str) -> bool:
        """Return whether the client follows a log, now or as soon as it can."""
        return log in self._logs

    @property
    def faults(self) -> Faults:
        """Counters of faults that a correct server never causes."""
        return Faults(self._logs.gaps, self._logs.repeats)

    @property
    def pending(self) -> int:
        """The number of unanswered commands."""
        return len(self._commands)

    # --- commands of the caller ------------------------------------------------------------------------

    def start(self, token: str, now: float) -> None:
        """Open the first connection; after `close` do nothing. Raises LocalProtocolError if already started, or as `set_token`."""
        if self.phase not in {ClientPhase.IDLE, ClientPhase.ENDED}:
            raise LocalProtocolError("the client has begun")
        self._token = sendable(token)
        self._connect(ClientInput.START, now)

    def set_token(self, token: str, now: float) -> None:
        """Use another token from now on, also for the open connection. Raises LocalProtocolError for invalid Unicode."""
        self._token = sendable(token)
        if self.phase is ClientPhase.OPEN and self._renewal > 0:
            self._renews_again = True
        elif self.phase is ClientPhase.OPEN:
            ref = next(self._refs)
            self._renewal = ref if self._say(Auth(token, ref)) else 0  # a token that is too long gets no answer
        elif self.phase is ClientPhase.TOKENLESS:
            self._move(ClientInput.TOKEN)
            if ClientDeadline.RECONNECT not in self._deadlines:
                self._deadlines.set(ClientDeadline.RECONNECT, now)

    def follow(self, log: str, place: ResumePosition | None = None, *, tail: int | None = None) -> None:
        """Follow a log after `place`, or from its newest `tail` events, or from now on. Raises LocalProtocolError."""
        self._logs.add(log, place, tail)

    def unfollow(self, log: str) -> ResumePosition | None:
        """Stop following a log, and deliver nothing more of it. Return its last delivered place. Safe to repeat."""
        place = told.place_before(self._events, log) or self.places.get(log)
        if self._logs.remove(log) and self.phase.is_asking:
            self._say(Unsub([log]))
        self._events = deque(event for event in self._events if getattr(event, "log", None) != log)
        return place

    def send(self, command: AnyCommand) -> int:
        """Send a command, now or on the next connection, until it is answered. Return its ref, which replaces that of `command`.

        A command without a key gets a random one. Invalid Unicode is refused. Raises LocalProtocolError if too many commands wait.
        Commands that are unanswered at `Ended`, or sent later, get no answer.
        """
        ref = next(self._refs)
        if not self._commands.add(ref, command):
            self._events.append(told.not_sent(ref, ErrorCode.INVALID_JSON, LONE_SURROGATE))
        self._ask()
        return ref

    def withdraw(self, ref: int) -> bool:
        """Abandon a command: it is not sent again, and its answer is not reported. Return whether it was ever sent."""
        return self._commands.withdraw(ref)

    def close(self) -> None:
        """End the client. Safe to repeat."""
        if self.phase is ClientPhase.ENDED:
            return
        if self.phase.has_socket:
            self._events.append(told.Disconnect(GatewayClose.NORMAL))
        self._move(ClientInput.CLOSE)
        self._messages.clear()
        self._events.append(told.Ended(None, "closed"))

    def to_dict(self) -> dict[str, list[int]]:
        """Return the last delivered position of each log, for storage."""
        return self._logs.to_dict()

    def restore(self, kept: Mapping[str, list[int]]) -> None:
        """Follow the logs that `to_dict` stored, from there; all or none. Raises ValueError, LocalProtocolError."""
        self._logs.restore(kept)

    # --- the machine -----------------------------------------------------------------------------------

    def _move(self, step: ClientInput) -> bool:
        """Change to the phase that `step` leads to; nothing else changes it. Return False if `step` does not apply now."""
        target = CLIENT_TRANSITIONS[self.phase].get(step)
        if target is None:
            return False
        if target is not self.phase:
            self.phase = target
            self._deadlines.stop_all_but(CLIENT_PHASES[target].deadlines)
        return True

    def _say(self, frame: ClientFrame) -> bool:
        """Queue a frame. Return False if it is larger than the server accepts; then it is not sent."""
        payload = self.encoding.client_payload(frame)
        fits = len(payload if isinstance(payload, bytes) else payload.encode()) <= self._frame_bytes
        if fits:
            self._messages.append(payload)
        return fits

    def _ask(self) -> None:
        """Send waiting requests, unless the server is stopping or not connected."""
        if self.phase.is_asking:
            self._ask_for_logs()  # before commands that cause events in these logs
            for command in self._commands.to_send():
                if not self._say(command) and self._commands.answered(command.ref):
                    self._events.append(told.not_sent(command.ref, ErrorCode.TOO_LARGE))

    def _ask_for_logs(self) -> None:
        if self.phase.is_asking:
            for sub in self._logs.subs(self._refs, self._frame_bytes):
                self._say(sub)

    # --- the connection --------------------------------------------------------------------------------

    def _connect(self, step: ClientInput, now: float) -> None:
        if self._move(step):
            self._deadlines.set(ClientDeadline.ANSWER, now + CLIENT_HANDSHAKE_SECS)
            self._events.append(told.Connect())

    def connected(self, now: float) -> None:
        """Note that the WebSocket is open."""
        if self._move(ClientInput.CONNECTED):
            self._deadlines.set(ClientDeadline.ANSWER, now + CLIENT_HANDSHAKE_SECS)

    def disconnected(self, code: int | None, reason: str, now: float) -> None:
        """Note that the WebSocket has ended, with or without a close code, or could not be opened."""
        if not self.phase.has_socket:
            return
        action = after_close(code)
        if action is AfterClose.FINAL:
            self.refused(code, reason, now)
        elif action is AfterClose.RENEWED:
            self._forget_connection(now)
            self._move(ClientInput.TOKEN_REFUSED)
            self._events.append(told.Interrupted(f"{code} {reason}", None))
            # ask for the token after the delay, because it may be short-lived
            self._deadlines.set(ClientDeadline.RECONNECT, now + self._backoff.next_delay(at_once=True))
            self.handle_deadline(now)
        else:
            self._lost(f"{code} {reason}" if code is not None else reason, now)

    def refused(self, code: int | None, reason: str, now: float, error: str | None = None) -> None:
        """End the client: `code` is a final close code, or the HTTP status that refused the upgrade."""
        self._forget_connection(now)
        if self._move(ClientInput.FINAL):
            self._events.append(told.Ended(code, reason, error))

    def _lost(self, reason: str, now: float) -> None:
        """Reconnect in the slot that the server assigned, or otherwise with backoff."""
        self._forget_connection(now)
        has_slot = ClientDeadline.SLOT in self._deadlines
        delay = max(self._deadlines[ClientDeadline.SLOT] - now, 0.0) if has_slot else self._backoff.next_delay()
        self._move(ClientInput.LOST)
        self._deadlines.set(ClientDeadline.RECONNECT, now + delay)
        self._events.append(told.Interrupted(reason, delay))

    def _give_up(self, reason: str, now: float) -> None:
        self._events.append(told.Disconnect(GatewayClose.GOING_AWAY))
        self._lost(reason, now)

    def _forget_connection(self, now: float) -> None:
        if self.phase in {ClientPhase.OPEN, ClientPhase.DRAINING}:
            self._backoff.connection_ended(now - self._opened_at)
        if self.phase is ClientPhase.DRAINING:
            self._backoff.reset()  # an orderly stop is not a failure
        self._messages.clear()
        self._renewal, self._renews_again = 0, False
        self._logs.disconnected()
        self._events.extend(told.Dropped(ref) for ref in self._commands.disconnected())

    def postpone_silence(self, now: float) -> None:
        """Postpone the silence deadline. Call it while the connection is not read because the program takes no events."""
        if ClientDeadline.SILENCE in self._deadlines:
            self._deadlines.set(ClientDeadline.SILENCE, now + SERVER_SILENT_HEARTBEATS * self._heartbeat_secs)

    def handle_deadline(self, now: float) -> None:
        """Act on the deadlines that have passed; early calls do nothing."""
        while (name := self._deadlines.take_expired(now)) is not None:
            match name:
                case ClientDeadline.RECONNECT if self.phase is ClientPhase.TOKENLESS:
                    self._events.append(told.TokenNeeded(None))
                case ClientDeadline.RECONNECT:
                    self._connect(ClientInput.DUE, now)
                case ClientDeadline.HEARTBEAT:
                    self._deadlines.set(name, now + self._heartbeat_secs)
                    self._say(Heartbeat())
                case ClientDeadline.RETRY:
                    self._logs.wake()
                    self._ask()
                    if self._renewal == _AGAIN:
                        self.set_token(self._token, now)
                case ClientDeadline.SLOT:
                    self._deadlines.set(name, now)  # reconnect at once
                    self._give_up("the server stops", now)
                case ClientDeadline.ANSWER | ClientDeadline.SILENCE:
                    self._give_up(_GIVEN_UP[name], now)

    # --- the server's messages -------------------------------------------------------------------------

    def received(self, payload: str | bytes, now: float) -> None:
        """Process a message: text as `str`, binary as `bytes`."""
        if not self.phase.has_socket:
            return
        self.postpone_silence(now)
        try:
            frame = self.encoding.decode_server(payload)
        except (MalformedFrame, WrongKind) as fault:
            self._give_up(f"not a gateway frame: {fault}", now)
            return
        if frame is not None:
            self._take(frame, now)

    def _take(self, frame: ServerFrame, now: float) -> None:
        match frame:
            case Ev():
                self._take_event(frame)
            case Hello():
                if self._move(ClientInput.HELLO):
                    self._heartbeat_secs = max(frame.heartbeat_ms, 1) / 1_000
                    self._frame_bytes = frame.limits.frame_bytes
                    self._deadlines.set(ClientDeadline.ANSWER, now + CLIENT_HANDSHAKE_SECS)
                    self._say(Auth(self._token))
                    self._ask()  # the server processes these after `auth`
            case Ready():
                if self._move(ClientInput.READY):
                    self._opened_at = now
                    self._deadlines.set(ClientDeadline.HEARTBEAT, now + self._heartbeat_secs)
                    self._deadlines.set(ClientDeadline.SILENCE, now + SERVER_SILENT_HEARTBEATS * self._heartbeat_secs)
                    self._events.append(told.Opened(frame))
            case Drain(reconnect_after_ms=after_ms):
                if self._move(ClientInput.DRAIN):
                    self._deadlines.set(ClientDeadline.SLOT, now + after_ms / 1_000)
            case _ if self.phase.has_sent_auth:
                self._take_answer(frame, now)

    def _take_event(self, event: Ev) -> None:
        if self._logs.arrived(event) is Arrival.NEXT:
            self._backoff.reset()
            self._events.append(told.Delivered(event.log, event.epoch, event.seq, self.encoding.json_of(event.event)))

    def _take_answer(self, frame: ServerFrame, now: float) -> None:
        match frame:
            case Ok(ref=ref) if ref == self._renewal:
                self._renewed(now)
            case Ok(ref=ref, result=result):
                if self._commands.answered(ref):
                    self._backoff.reset()
                    self._events.append(told.Answered(ref, result))
                    self._ask()
            case Err():
                self._take_refusal(frame, now)
            case SubOk(ref=ref, logs=lines):
                for line in lines:
                    if self._logs.begun(ref, line):
                        self._events.append(told.Followed(line.log, line.epoch, line.after, line.head, line.recovered))
            case Gone(log=log, code=code):
                if self._logs.gone(log, code):
                    self._events.append(told.LogGone(log, code))
                    self._rest(now)
            case AuthExpiring(expires_in_ms=left_ms):
                self._events.append(told.TokenNeeded(left_ms))
            case Lagging(log=log, head=head) if log in self._logs:
                self._events.append(told.LogLagging(log, head))
            case Live(log=log) if log in self._logs:
                self._events.append(told.LogLive(log))
            case Eph(log=log, kind=kind, data=data) if log in self._logs:
                self._events.append(told.HintReceived(log, kind, self.encoding.json_of(data)))

    def _take_refusal(self, err: Err, now: float) -> None:
        if err.log is not None:
            again = self._logs.refused(err.ref, err.log, err.code)
            if again:
                self._rest(now)
            elif again is not None:
                self._events.append(told.FollowRefused(err.log, err.code, err.message))
        elif err.ref == self._renewal != 0:
            if err.code in TEMPORARY:
                self._renewal = _AGAIN
                self._rest(now)
            elif not self._renewed(now):
                self._events.append(told.TokenNeeded(None))
        elif (may_be_done := self._commands.refused(err.ref, err.code, now)) is not None:
            if self._commands.wants_another_server(now):
                self._give_up("the server has no database", now)
            details = tuple(err.details)
            self._events.append(told.Refused(err.ref, err.code, err.message, err.retry_after_ms, details, may_be_done))
            self._ask()

    def _renewed(self, now: float) -> bool:
        """Note that a renewal was answered. Return whether another one follows."""
        again, self._renewal, self._renews_again = self._renews_again, 0, False
        if again:
            self.set_token(self._token, now)
        return again

    def _rest(self, now: float) -> None:
        if ClientDeadline.RETRY not in self._deadlines:
            self._deadlines.set(ClientDeadline.RETRY, now + PAGE_RETRY_SECS + self._backoff.next_delay())
