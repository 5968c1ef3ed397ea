"""One WebSocket connection from the client's side, without I/O: handshake, messages, close.

Send `data_to_send()` after every call, feed `receive_data`, and take the events. `Accepted` comes first. The last event is
`Refused`, `Closed` or `Broken`, after which nothing more is read. At the end of the transport call `receive_eof`.
"""

from __future__ import annotations

import re
from typing import TypeAlias

import h11
import msgspec
from wsproto import ConnectionType, WSConnection, events
from wsproto.connection import ConnectionState
from wsproto.utilities import LocalProtocolError as WsprotoMisuse
from wsproto.utilities import RemoteProtocolError

from openguild_proto.client.http import ClientResponse, cannot_be_sent
from openguild_proto.errors import LocalProtocolError
from openguild_proto.http.message import Headers
from openguild_proto.http.strictness import WHOLE_TOKEN
from openguild_proto.limits import (
    MAX_INTERIM_RESPONSES,
    MAX_REFUSAL_CHARS,
    MAX_RESPONSE_HEAD_BYTES,
    MAX_STREAM_MESSAGE_CHARS,
)
from openguild_proto.ws.close_codes import CloseCode, is_sendable

_END_OF_HEAD = re.compile(rb"\r?\n\r?\n")
_INTERIM = re.compile(rb"HTTP/1\.[01] 1(?!01)[0-9]{2}[ \r\n]")
_READ_REFUSAL_BYTES = 2_000


class Accepted(msgspec.Struct, frozen=True, gc=False):
    """The server has accepted the upgrade. `headers`: of the 101, with lower-case names."""

    headers: Headers
    subprotocol: str | None


class Message(msgspec.Struct, frozen=True, gc=False):
    """A complete message: `str` for text, `bytes` for binary."""

    payload: str | bytes


class Refused(msgspec.Struct, frozen=True, gc=False):
    """The server answered the upgrade with a status other than 101. The body may be truncated."""

    response: ClientResponse


class Closed(msgspec.Struct, frozen=True, gc=False):
    """The server sent a close frame, and the reply is queued. `code` 1005: the frame had no code."""

    code: int
    reason: str


class Broken(msgspec.Struct, frozen=True, gc=False):
    """The server broke the protocol, or exceeded a bound of this client."""

    reason: str


WebSocketEvent: TypeAlias = Accepted | Message | Refused | Closed | Broken


class ClientWebSocket:
    """A connection that begins with the handshake for `target` (path and query) on `host`. `token`: sent as a bearer token.

    Raises LocalProtocolError for a host, target, token or subprotocol that cannot be sent.
    """

    def __init__(self, host: str, target: str, *, token: str | None = None, subprotocols: tuple[str, ...] = ()) -> None:
        self._ws = WSConnection(ConnectionType.CLIENT)
        self._open = False
        self._over = False
        self._parts: list[str | bytes] = []  # of a message, or of the body of an error response
        self._size = 0
        self._head: bytes | None = b""  # of the handshake response, until it is complete
        self._interim = 0
        self._refusal = ClientResponse(0, (), b"")
        if any(not name.isascii() or WHOLE_TOKEN.fullmatch(name.encode()) is None for name in subprotocols):
            # The message leaves out the subprotocol, which may contain the access token.
            raise LocalProtocolError("the request cannot be sent: a subprotocol is a token")
        try:
            headers = [(b"authorization", b"Bearer " + token.encode("ascii"))] if token is not None else []
            request = events.Request(host=host, target=target, subprotocols=list(subprotocols), extra_headers=headers)
            self._out = [self._ws.send(request)]
        except (h11.LocalProtocolError, UnicodeEncodeError) as misuse:
            raise cannot_be_sent(misuse) from None

    @property
    def is_over(self) -> bool:
        """Whether no more data is read."""
        return self._over

    def data_to_send(self) -> bytes:
        """Return and clear the bytes queued for the transport."""
        parts, self._out = self._out, []
        return b"".join(parts)

    def send(self, payload: str | bytes) -> None:
        """Queue a message. Does nothing once either side has sent its close frame. Raises LocalProtocolError before `Accepted`."""
        if not self._open and not self._over:
            raise LocalProtocolError("the WebSocket is not open yet")
        if isinstance(payload, str):
            self._send(events.TextMessage(data=payload))
        else:
            self._send(events.BytesMessage(data=payload))

    def close(self, code: int = CloseCode.NORMAL) -> None:
        """Queue a close frame if the WebSocket is open; no more data is read. Raises LocalProtocolError for an invalid code."""
        if not is_sendable(code):
            raise LocalProtocolError(f"close code {code} must not be sent")
        if self._open:
            self._send(events.CloseConnection(code=code))
        self._over = True

    def receive_data(self, data: bytes) -> list[WebSocketEvent]:
        """Feed bytes from the server and return the events."""
        found: list[WebSocketEvent] = []
        if self._over:
            return found
        try:
            data = self._skip_interim_answers(data)
            if data:
                self._ws.receive_data(data)
                for decoded in self._ws.events():
                    event = self._handle(decoded)
                    if event is not None:
                        found.append(event)
                    if self.is_over:
                        break
        except (RemoteProtocolError, UnicodeDecodeError, ValueError) as failure:  # header values that are not ASCII
            found.append(self._break(f"not a WebSocket response: {failure}"))
        return found

    def receive_eof(self) -> list[WebSocketEvent]:
        """Handle the end of the transport, which may end the body of an error response (RFC 9112 6.3)."""
        if self._over:
            return []
        return [self._refused() if self._refusal.status else self._break("the connection ended")]

    def _skip_interim_answers(self, data: bytes) -> bytes:
        """Drop interim responses, which wsproto would take for the final one (RFC 9110 15.2). b"" until the head is complete."""
        if self._head is None:
            return data
        self._head += data
        while (end := _END_OF_HEAD.search(self._head)) is not None:
            if _INTERIM.match(self._head) is None:
                head, self._head = self._head, None
                return head
            self._head = self._head[end.end() :]
            self._interim += 1
            if self._interim > MAX_INTERIM_RESPONSES:
                raise RemoteProtocolError("too many interim responses")
        if len(self._head) > MAX_RESPONSE_HEAD_BYTES:
            raise RemoteProtocolError("the response head is too large")
        return b""

    def _handle(self, event: events.Event) -> WebSocketEvent | None:
        match event:
            case events.AcceptConnection(extra_headers=headers, subprotocol=subprotocol):
                self._open = True
                return Accepted(_decoded(headers), subprotocol)
            case events.RejectConnection(status_code=status, headers=headers, has_body=has_body):
                self._refusal = ClientResponse(status, _decoded(headers), b"")
                return None if has_body else self._refused()
            case events.RejectData(data=data, body_finished=finished):
                self._parts.append(bytes(data[:_READ_REFUSAL_BYTES]))
                self._size += len(data)
                return self._refused() if finished or self._size > MAX_REFUSAL_CHARS else None
            case events.TextMessage(data=data, message_finished=finished):
                return self._whole(data, finished, "")
            case events.BytesMessage(data=data, message_finished=finished):
                return self._whole(bytes(data), finished, b"")
            case events.Ping():
                self._send(event.response())
                return None
            case events.CloseConnection(code=code, reason=reason):
                # If the state is still OPEN no close frame has come: wsproto reports a protocol error of the server.
                broken = self._ws.state is ConnectionState.OPEN
                self._send(event.response())
                self._over = True
                return Broken(f"the server broke RFC 6455: close code {code}") if broken else Closed(code, reason or "")
        return None

    def _whole(self, part: str | bytes, finished: bool, empty: str | bytes) -> WebSocketEvent | None:
        self._size += len(part)
        if self._size > MAX_STREAM_MESSAGE_CHARS:
            return self._break("a message is too large")
        if self._parts or not finished:
            if part:  # there may be any number of empty ones
                self._parts.append(part)
            if not finished:
                return None
            part = empty.join(self._parts)  # type: ignore[arg-type]  # the parts of a message are of one kind (RFC 6455 5.4)
            self._parts = []
        self._size = 0
        return Message(part)

    def _send(self, event: events.Event) -> None:
        try:
            self._out.append(self._ws.send(event))
        except WsprotoMisuse:  # a close frame was already sent
            return

    def _refused(self) -> Refused:
        self._over = True
        body = b"".join(part for part in self._parts if isinstance(part, bytes))
        return Refused(ClientResponse(self._refusal.status, self._refusal.headers, body))

    def _break(self, reason: str) -> Broken:
        self._over = True
        return Broken(reason)


def _decoded(headers: list[tuple[bytes, bytes]]) -> Headers:
    return tuple((name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in headers)
