"""The client side of one keep-alive HTTP/1.1 connection, without I/O, built on h11."""

from __future__ import annotations

import re

import h11
import msgspec

from openguild_proto.errors import LocalProtocolError
from openguild_proto.limits import (
    MAX_FREE_CHUNKS,
    MAX_INTERIM_RESPONSES,
    MAX_RESPONSE_BODY_BYTES,
    MAX_RESPONSE_HEAD_BYTES,
    MIN_CHUNK_BYTES,
)


class ClientResponse(msgspec.Struct, frozen=True, gc=False):
    """A complete response. Header names are in lower case."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str | None:
        """Return the first value of a header, or None."""
        return next((value for key, value in self.headers if key == name), None)


class ConnectionBroken(Exception):
    """The connection ended, or failed, before the response was complete. The request may have been carried out."""


def cannot_be_sent(misuse: Exception) -> LocalProtocolError:
    """Return the exception to raise for `misuse`, found by h11 or Python. Leaves out the value, which may be a token."""
    fault = "not ASCII" if isinstance(misuse, UnicodeError) else str(misuse).partition(" b'")[0].partition(' b"')[0]
    return LocalProtocolError(f"the request cannot be sent: {fault}")


_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")  # most of these pass h11's checks
_FRAMING = frozenset({"content-length", "transfer-encoding"})


class HttpClient:
    """One connection. Call `send_request`, send the bytes, and feed `receive_data` until it returns the response.

    `host` is the value of the Host header. Handles one request at a time. A body longer than `max_body_bytes`, or of very many
    small chunks, breaks the connection.
    """

    __slots__ = (
        "_answer_has_body",
        "_body",
        "_chunks",
        "_connection",
        "_head",
        "_host",
        "_interim",
        "_max_body_bytes",
    )

    def __init__(self, host: str, max_body_bytes: int = MAX_RESPONSE_BODY_BYTES) -> None:
        self._host = host
        self._max_body_bytes = max_body_bytes
        self._connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_RESPONSE_HEAD_BYTES)
        self._head: h11.Response | None = None
        self._body = bytearray()  # as separate objects, small pieces would take much more memory
        self._chunks = 0
        self._answer_has_body = True
        self._interim = 0  # interim responses: 100 Continue, 103 Early Hints

    @property
    def reusable(self) -> bool:
        """Whether another request may be sent on this connection."""
        return self._connection.our_state is h11.IDLE and self._connection.their_state is h11.IDLE

    def send_request(
        self, method: str, target: str, headers: tuple[tuple[str, str], ...] = (), body: bytes = b"",
        max_body_bytes: int | None = None,
    ) -> bytes:  # fmt: skip
        """Return the bytes of a request. `max_body_bytes`: of this response and later ones.

        Raises LocalProtocolError while another request is in progress, for a body that is not bytes, and for a method, target
        or header that cannot be sent: one that is not ASCII, or a header of the framing, which the connection sets itself.
        """
        if not self.reusable:
            raise LocalProtocolError("the connection cannot take a request now")
        if not isinstance(body, (bytes, bytearray)):
            raise LocalProtocolError("the request cannot be sent: a body is bytes")
        if not all(isinstance(text, str) for header in headers for text in header) or any(len(h) != 2 for h in headers):
            raise LocalProtocolError("the request cannot be sent: headers are pairs of a name and a value, both str")
        if framing := _FRAMING.intersection([name.lower() for name, _ in headers]):
            raise LocalProtocolError(f"the request cannot be sent: the header {min(framing)} is the connection's own")
        if any(_CONTROL.search(value) for _, value in headers):
            raise LocalProtocolError("the request cannot be sent: Illegal header value")
        fields = [("host", self._host), ("accept-encoding", "identity"), *headers, ("content-length", str(len(body)))]
        try:
            request = h11.Request(method=method, target=target, headers=fields)
        except (h11.LocalProtocolError, UnicodeEncodeError, TypeError) as misuse:
            raise cannot_be_sent(misuse) from None
        self._answer_has_body = method != "HEAD"
        if max_body_bytes is not None:
            self._max_body_bytes = max_body_bytes
        sent = self._connection.send(request) or b""
        if body:
            sent += self._connection.send(h11.Data(data=body)) or b""
        return sent + (self._connection.send(h11.EndOfMessage()) or b"")

    def receive_data(self, data: bytes) -> ClientResponse | None:
        """Feed bytes, b"" for the end of the stream. Return the response when it is complete.

        Raises ConnectionBroken, and LocalProtocolError for bytes after the end of the stream.
        """
        try:
            self._connection.receive_data(data)
        except RuntimeError:
            raise LocalProtocolError("the stream has ended: no more bytes are accepted") from None
        try:
            while True:
                event = self._connection.next_event()
                if event is h11.NEED_DATA:
                    return None
                match event:
                    case h11.Response(headers=headers):
                        self._head = event
                        if self._answer_has_body and any(
                            name == b"content-length" and int(value) > self._max_body_bytes for name, value in headers
                        ):
                            raise ConnectionBroken("the response is too large")
                    case h11.InformationalResponse():  # RFC 9110 15.2: any number may precede the response
                        self._interim += 1
                        if self._interim > MAX_INTERIM_RESPONSES:
                            raise ConnectionBroken("too many interim responses")
                    case h11.Data(data=part, chunk_start=is_chunk):
                        size = len(self._body) + len(part)
                        self._chunks += is_chunk
                        if self._chunks > MAX_FREE_CHUNKS + size // MIN_CHUNK_BYTES:
                            raise ConnectionBroken("the response has too many chunks")
                        if size > self._max_body_bytes:
                            raise ConnectionBroken("the response is too large")
                        self._body += part
                    case h11.EndOfMessage():
                        return self._complete()
                    case h11.ConnectionClosed():
                        raise ConnectionBroken("the connection was closed before a response")
                    case h11.PAUSED:
                        raise ConnectionBroken("the server switched protocols without a request")
        except h11.RemoteProtocolError as failure:
            raise ConnectionBroken(str(failure) if data else "the connection ended") from failure

    def _complete(self) -> ClientResponse:
        head, self._head = self._head, None
        body, self._body, self._interim = bytes(self._body), bytearray(), 0
        self._chunks = 0
        if head is None:
            raise ConnectionBroken("a response without a head")
        surplus = self._connection.trailing_data[0]  # would be read as the response to the next request
        if self._connection.our_state is h11.DONE and self._connection.their_state is h11.DONE and not surplus:
            self._connection.start_next_cycle()
        headers = tuple((name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in head.headers)
        return ClientResponse(head.status_code, headers, body)
