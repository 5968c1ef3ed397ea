"""The server side of HTTP/1.1: returns complete requests (reader.py) and encodes responses."""

from __future__ import annotations

from functools import lru_cache

from openguild_proto.errors import LocalProtocolError, Refusal
from openguild_proto.http import strictness
from openguild_proto.http.fast_path import HANDSHAKE, PlainExchange
from openguild_proto.http.headers import HeaderPolicy
from openguild_proto.http.message import Headers, Response
from openguild_proto.http.reader import RequestReader
from openguild_proto.http.refusal import refusal_response
from openguild_proto.uuids import new_uuid

UPGRADE_REQUIRED = 426  # has an Upgrade header (RFC 9110 15.5.22), which needs `Connection: upgrade` (7.8)


class HttpConnection:
    """Encodes the responses to the requests of `reader`, one at a time, in order (RFC 9112 9.3.2).

    Keeps no state of its own: the caller knows whether a request awaits a response (connection/phases.py).
    """

    __slots__ = ("_policy", "reader")

    def __init__(self, reader: RequestReader, policy: HeaderPolicy) -> None:
        self.reader = reader
        self._policy = policy

    def respond(self, response: Response) -> tuple[bytes, bool]:
        """Return the bytes of the response, and whether the connection may be reused."""
        reader = self.reader
        data = self._response_bytes(response, reader.request.request_id if reader.request is not None else "")
        if response.close or not reader.exchange.begin_next():
            return data, False
        reader.begin_next()
        return data, True

    def refuse(self, refusal: Refusal) -> tuple[bytes, str]:
        """Return the bytes of the final response, to an invalid head or body, and its request id.

        The id is new if the head could not be read.
        """
        reader = self.reader
        request_id = reader.request.request_id if reader.request is not None else new_uuid(reader.random_bytes)
        return self._response_bytes(refusal_response(refusal, request_id, close=True), request_id), request_id

    def _response_bytes(self, response: Response, request_id: str) -> bytes:
        request, exchange, status = self.reader.request, self.reader.exchange, response.status
        is_number = isinstance(status, int)  # the caller may not check types
        if not (is_number and 200 <= status <= 599):  # RFC 9110 15: 1xx is not a final response
            raise LocalProtocolError(f"status {status!r}: must be between 200 and 599")
        if not isinstance(response.body, (bytes, bytearray)):  # h11 would notice too late
            raise LocalProtocolError("the body of a response is bytes; Response.text and Response.json encode theirs")
        content = b"" if status in _WITHOUT_CONTENT else response.body
        body = b"" if request is not None and request.method == "HEAD" else content
        has_length = status not in {204, 304}
        if isinstance(exchange, PlainExchange):
            lines = self._policy.lines(response, request, request_id)
            length = b"content-length: %d\r\n" % len(content) if has_length else b""
            options = b"connection: close\r\n" if response.close else b""
            if status == UPGRADE_REQUIRED:
                options += b"connection: upgrade\r\n"
            return b"".join((_status_line(status), lines, length, options, b"\r\n", body))
        headers = self._policy.apply(response, request, request_id)
        if has_length:
            headers.append((b"content-length", str(len(content)).encode()))
        if response.close:
            headers.append((b"connection", b"close"))
        if status == UPGRADE_REQUIRED:
            headers.append((b"connection", b"upgrade"))
        return exchange.response(status, _reason(status), headers, body)

    def continue_response(self) -> bytes:
        """Return the response 100 Continue (RFC 9110 10.1.1), or b"" if the request has no Expect: 100-continue."""
        return self.reader.exchange.interim(100, "Continue", []) if self.reader.expects_continue else b""

    def switch(self, accept_token: bytes, subprotocol: str | None, more: Headers = ()) -> bytes:
        """Return the bytes of 101 Switching Protocols (RFC 6455 4.2.2), with the headers `more`.

        Raises LocalProtocolError if `more` has headers of the handshake.
        """
        for name, _ in more:
            if name.lower() == "upgrade" or name.lower().startswith("sec-websocket-"):
                raise LocalProtocolError(f"the header {name} is the handshake's own")
        reader = self.reader
        request, response = reader.request, Response(status=101, headers=more)
        request_id = request.request_id if request is not None else ""
        if reader.exchange is HANDSHAKE:
            protocol = b"" if subprotocol is None else b"sec-websocket-protocol: %b\r\n" % _token(subprotocol)
            return _SWITCHED % (accept_token, protocol, self._policy.lines(response, request, request_id))
        headers = [(b"upgrade", b"websocket"), (b"connection", b"Upgrade"), (b"sec-websocket-accept", accept_token)]
        if subprotocol is not None:
            headers.append((b"sec-websocket-protocol", _token(subprotocol)))
        headers += self._policy.apply(response, request, request_id)
        return reader.exchange.interim(101, "Switching Protocols", headers)


_SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: %b\r\n%b%b\r\n"


def _token(value: str) -> bytes:
    """Encode a token. Raises LocalProtocolError for invalid characters (RFC 9110 5.6.2)."""
    if not value.isascii() or strictness.WHOLE_TOKEN.fullmatch(value.encode()) is None:
        raise LocalProtocolError(f"{value!r} is not a token")
    return value.encode()


@lru_cache(maxsize=64)
def _status_line(status: int) -> bytes:
    return f"HTTP/1.1 {status} {_reason(status)}\r\n".encode("ascii")


def _reason(status: int) -> str:
    return _REASONS.get(status, "")


_WITHOUT_CONTENT = frozenset({204, 205, 304})  # RFC 9110 15.3.5, 15.3.6, 15.4.5


_REASONS = {
    200: "OK", 201: "Created", 202: "Accepted", 203: "Non-Authoritative Information", 204: "No Content", 205: "Reset Content",
    206: "Partial Content", 300: "Multiple Choices", 301: "Moved Permanently", 302: "Found", 303: "See Other",
    304: "Not Modified", 307: "Temporary Redirect", 308: "Permanent Redirect", 400: "Bad Request", 401: "Unauthorized",
    402: "Payment Required", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed", 406: "Not Acceptable",
    407: "Proxy Authentication Required", 408: "Request Timeout", 409: "Conflict", 410: "Gone", 411: "Length Required",
    412: "Precondition Failed", 413: "Content Too Large", 414: "URI Too Long", 415: "Unsupported Media Type",
    416: "Range Not Satisfiable", 417: "Expectation Failed", 421: "Misdirected Request", 422: "Unprocessable Content",
    426: "Upgrade Required", 428: "Precondition Required", 429: "Too Many Requests", 431: "Request Header Fields Too Large",
    451: "Unavailable For Legal Reasons", 500: "Internal Server Error", 501: "Not Implemented", 502: "Bad Gateway",
    503: "Service Unavailable", 504: "Gateway Timeout", 505: "HTTP Version Not Supported",
}  # fmt: skip  # RFC 9110 15, RFC 6585
