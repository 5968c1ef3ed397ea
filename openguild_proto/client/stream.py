"""A subscription to one channel across many connections, without I/O: resume, deduplication and reconnect delays.

For each connection: `connect`, send `data_to_send()`, feed `receive_data` and deadlines, take the events. `Disconnected` has
the delay before the next `connect`; `Ended` is final. Repeated events are dropped by their sequence. A gap ends the
connection: after the reconnect the server replays the missing events from the log.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeAlias

import msgspec

from openguild_proto.client import websocket
from openguild_proto.client.errors import api_error
from openguild_proto.client.http import ClientResponse
from openguild_proto.client.proxy_answers import proxy_answer_reason
from openguild_proto.client.retry_advice import is_temporary, parse_retry_after
from openguild_proto.client.websocket import ClientWebSocket, WebSocketEvent
from openguild_proto.errors import ErrorCode, LocalProtocolError
from openguild_proto.http.message import EPOCH_HEADER, Headers
from openguild_proto.limits import CLIENT_HANDSHAKE_SECS, CLIENT_SILENCE_SECS, MAX_SAFE_INTEGER, MAX_SEQUENCE
from openguild_proto.policy.backoff import Backoff
from openguild_proto.schemas.payloads import payload_sequence
from openguild_proto.ws.close_codes import CLOSE_CODES, CloseCode
from openguild_proto.ws.reasons import reconnect_secs

_EPOCH = re.compile(r"[1-9][0-9]{0,15}")


class Opened(msgspec.Struct, frozen=True, gc=False):
    """The server has accepted the stream. `since` is the requested position."""

    since: int | None


class Delivered(msgspec.Struct, frozen=True, gc=False):
    """The next event of the channel, in order and without repeats. `payload`: the frame's JSON text."""

    sequence: int
    payload: str


class Notified(msgspec.Struct, frozen=True, gc=False):
    """A message of the notification stream, as JSON text."""

    payload: str


class Disconnected(msgspec.Struct, frozen=True, gc=False):
    """The connection ended. Reconnect after `retry_secs`, with a new token if `needs_token`."""

    retry_secs: float
    reason: str
    needs_token: bool = False


class Ended(msgspec.Struct, frozen=True, gc=False):
    """The stream ended for good. `code`: an HTTP status or a terminal close code (PROTOCOL 8.9.2).

    `reason`: of the close frame or the error response. `error`: the code of an error response (PROTOCOL 3.6), such as
    "forbidden".
    """

    code: int
    reason: str
    error: str | None = None


StreamEvent: TypeAlias = Opened | Delivered | Notified | Disconnected | Ended


class StreamClient:
    """One stream. `channel_id` None: the notification stream, which has no sequences.

    `since` is exclusive; None starts with the newest events. `position` is the last sequence delivered, initially `since`.
    `epoch` is the epoch of the log that `position` belongs to, None until the server has sent it. Store both together.
    `jitter()` returns a number in [0, 1). Raises LocalProtocolError for a position or an epoch out of range.
    """

    def __init__(
        self, channel_id: str | None, since: int | None, jitter: Callable[[], float], epoch: int | None = None
    ) -> None:
        if not (since is None or 0 <= since <= MAX_SEQUENCE) or not (epoch is None or 1 <= epoch <= MAX_SAFE_INTEGER):
            raise LocalProtocolError(f"the log has no position {since} in epoch {epoch}")
        self.channel_id = channel_id
        self.position = since
        self.epoch = epoch
        self.gaps = 0  # times that events were missing; a correct server never causes one
        self.repeats = 0  # repeated events, which were dropped
        self._backoff = Backoff(jitter)
        self._refused_token = False
        self._ws: ClientWebSocket | None = None
        self._open = False
        self._opened_at = 0.0
        self._now = 0.0  # of the current input
        self._out: list[bytes] = []  # of connections that have ended
        self._deadline: float | None = None

    @property
    def connected(self) -> bool:
        """Whether a connection is opening or open."""
        return self._ws is not None

    def connect(self, host: str, token: str, now: float) -> None:
        """Begin a handshake on a new transport. Raises LocalProtocolError while connected, or for a bad host or token."""
        if self._ws is not None:
            raise LocalProtocolError("the stream is connected")
        if self.channel_id is None:
            target = "/notifications/ws"
        else:
            target = f"/channels/{self.channel_id}/ws"
            if self.position is not None:
                target += f"?since={self.position}"
                if self.epoch is not None:
                    target += f"&epoch={self.epoch}"
        self._ws = ClientWebSocket(host, target, token=token)  # no subprotocol
        self._open = False
        self._out.clear()
        self._deadline = now + CLIENT_HANDSHAKE_SECS

    def data_to_send(self) -> bytes:
        """Return and clear the bytes queued for the transport."""
        parts, self._out = self._out, []
        if self._ws is not None:
            parts.append(self._ws.data_to_send())
        return b"".join(parts)

    # --- input ---------------------------------------------------------------------------------------

    def receive_data(self, data: bytes, now: float) -> list[StreamEvent]:
        """Feed bytes from the server, b"" for the end of the transport. Return the events."""
        self._now = now
        ws = self._ws
        if ws is None:
            return []
        found: list[StreamEvent] = []
        if self._open:
            self._deadline = now + CLIENT_SILENCE_SECS
        for event in ws.receive_data(data) if data else ws.receive_eof():
            outcome = self._handle_event(event, now)
            if outcome is not None:
                found.append(outcome)
            if self._ws is None:
                break
        return found

    def failed(self, reason: str, now: float) -> Disconnected:
        """Report that the transport could not be opened or failed."""
        self._now = now
        return self._disconnect(reason)

    def next_deadline(self) -> float | None:
        """Return when `handle_deadline` is due, in monotonic seconds; None while not connected."""
        return self._deadline if self._ws is not None else None

    def handle_deadline(self, now: float) -> list[StreamEvent]:
        """Disconnect if the server has been silent for too long."""
        if self._ws is None or self._deadline is None or now < self._deadline:
            return []
        self._now = now
        return [self._disconnect("the server does not respond")]

    def close(self) -> None:
        """Queue a close frame and end the stream."""
        if self._ws is not None:
            self._ws.close()
        self._reset_connection()

    # --- events of the WebSocket ---------------------------------------------------------------------

    def _handle_event(self, event: WebSocketEvent, now: float) -> StreamEvent | None:
        match event:
            case websocket.Accepted(headers=headers):
                self._open = True
                self.epoch = _epoch_from_headers(headers)
                self._refused_token = False
                self._opened_at = now
                self._deadline = now + CLIENT_SILENCE_SECS
                return Opened(self.position)
            case websocket.Refused(response=response):
                return self._handle_refusal(response)
            case websocket.Message(payload=str(text)):
                return self._handle_message(text)
            case websocket.Closed(code=code, reason=reason):
                return self._handle_close(code, reason)
            case websocket.Broken(reason=reason):
                return self._disconnect(reason)
        return None

    def _handle_message(self, text: str) -> StreamEvent | None:
        if self.channel_id is None:
            self._backoff.reset()
            return Notified(text)
        try:
            sequence = payload_sequence(text)
        except msgspec.MsgspecError:
            return self._disconnect("a message is not an event")
        if self.position is not None:
            if sequence <= self.position:
                self.repeats += 1
                return None
            if sequence != self.position + 1:
                self.gaps += 1
                return self._disconnect(f"events {self.position + 1} to {sequence - 1} are missing")
        self.position = sequence
        self._backoff.reset()
        return Delivered(sequence, text)

    # --- the end of a connection ---------------------------------------------------------------------

    def _handle_refusal(self, refusal: ClientResponse) -> StreamEvent:
        """Handle an HTTP response in place of the upgrade."""
        status, foreign = refusal.status, proxy_answer_reason(refusal)
        if foreign is not None or status < 400:
            return self._disconnect(foreign or f"HTTP {status} instead of the upgrade")
        if status == 401 and not self._refused_token:
            self._refused_token = True
            return self._disconnect("the token is not accepted", needs_token=True)
        if is_temporary(status):
            return self._disconnect(f"HTTP {status}", parse_retry_after(refusal.header("retry-after")))
        if status == 400 and self.epoch is not None and _rejects_epoch(refusal):
            self.epoch = None
            return self._disconnect("a server of the previous release does not send the epoch")
        self._reset_connection()
        refused = api_error(refusal)
        return Ended(status, refused.reason, refused.code)

    def _handle_close(self, code: int, reason: str) -> StreamEvent:
        if code == CloseCode.TOKEN_ENDED and not self._refused_token:
            self._refused_token = True
            return self._disconnect(f"{code} {reason}", needs_token=True)
        row = CLOSE_CODES.get(CloseCode(code)) if code in set(CloseCode) else None
        if row is not None and row.action == "terminal":
            self._reset_connection()
            return Ended(code, reason)
        if code == CloseCode.SERVICE_RESTART:
            self._backoff.reset()  # an orderly close is not a failure
        return self._disconnect(f"{code} {reason}", reconnect_secs(reason))

    def _disconnect(self, reason: str, advised: float | None = None, *, needs_token: bool = False) -> Disconnected:
        if self._open:
            self._backoff.connection_ended(self._now - self._opened_at)
        self._reset_connection()
        return Disconnected(self._backoff.next_delay(advised, at_once=needs_token), reason, needs_token)

    def _reset_connection(self) -> None:
        if self._ws is not None:
            self._out.append(self._ws.data_to_send())
        self._ws = None
        self._open = False
        self._deadline = None


def _epoch_from_headers(headers: Headers) -> int | None:
    """Return the epoch in the headers of the 101; None if it is missing or invalid."""
    for name, value in headers:
        if name == EPOCH_HEADER and _EPOCH.fullmatch(value) is not None:
            epoch = int(value)
            return epoch if epoch <= MAX_SAFE_INTEGER else None
    return None


def _rejects_epoch(refusal: ClientResponse) -> bool:
    """Return whether the server rejects the `epoch` parameter. An older release, reached during a rollout, does."""
    refused = api_error(ClientResponse(400, (), refusal.body))
    named = any(problem.field == "epoch" for problem in refused.details)
    return named and refused.code == ErrorCode.VALIDATION.spec.code
