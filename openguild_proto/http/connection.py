"""One side of HTTP/1.1: whole requests out (reader.py), response bytes back, each by the exchange that read its request."""

from __future__ import annotations

from openguild_proto.errors import LocalProtocolError, Refusal
from openguild_proto.http import strictness
from openguild_proto.http.headers import HeaderPolicy
from openguild_proto.http.message import Headers, Response
from openguild_proto.http.reader import RequestReader
from openguild_proto.http.refusal import refusal_response
from openguild_proto.uuids import new_uuid


class HttpConnection:
    """Answers the requests of `reader`, one at a time, in their order (RFC 9112 9.3.2).

    It keeps no phase: whoever calls knows whether a request is there to be answered (connection/phases.py).
    """

    __slots__ = ("_policy", "reader")

    def __init__(self, reader: RequestReader, policy: HeaderPolicy) -> None:
        self.reader = reader
        self._policy = policy

    def respond(self, response: Response) -> tuple[bytes, bool]:
        """Bytes of the response to the reader's request, and whether the connection may go on."""
        reader = self.reader
        data = self._response_bytes(response, reader.request.request_id if reader.request is not None else "")
        if response.close or not reader.exchange.begin_next():
            return data, False
        reader.begin_next()
        return data, True

    def refuse(self, refusal: Refusal) -> bytes:
        """Bytes of the last response of this connection: to a head or body that cannot be trusted.

        It carries the id of the request; for a head that could not be read, one made here.
        """
        reader = self.reader
        request_id = reader.request.request_id if reader.request is not None else new_uuid(reader.random_bytes)
        return self._response_bytes(refusal_response(refusal, request_id, close=True), request_id)

    def _response_bytes(self, response: Response, request_id: str) -> bytes:
        request = self.reader.request
        headers = self._policy.apply(response, request, request_id)
        if response.status >= 200 and response.status not in {204, 304}:
            headers.append((b"content-length", str(len(response.body)).encode()))
        if response.close:
            headers.append((b"connection", b"close"))
        head_only = request is not None and request.method == "HEAD"
        body = b"" if head_only or response.status in {204, 304} else response.body
        return self.reader.exchange.response(response.status, _reason(response.status), headers, body)

    def go_on(self) -> bytes:
        """The interim response to Expect: 100-continue (RFC 9110 10.1.1); b"" where the request does not ask for it."""
        return self.reader.exchange.interim(100, "Continue", []) if self.reader.expects_continue else b""

    def switch(self, accept_token: bytes, subprotocol: str | None, more: Headers = ()) -> bytes:
        """Bytes of 101 Switching Protocols (RFC 6455 4.2.2), with `more` headers."""
        request = self.reader.request
        headers = [(b"upgrade", b"websocket"), (b"connection", b"Upgrade"), (b"sec-websocket-accept", accept_token)]
        if subprotocol is not None:
            headers.append((b"sec-websocket-protocol", _token(subprotocol)))
        request_id = request.request_id if request is not None else ""
        headers += self._policy.apply(Response(status=101, headers=more), request, request_id)
        return self.reader.exchange.interim(101, "Switching Protocols", headers)


def _token(value: str) -> bytes:
    """Raises LocalProtocolError for what no token may hold (RFC 9110 5.6.2)."""
    if not value.isascii() or strictness.WHOLE_TOKEN.fullmatch(value.encode()) is None:
        raise LocalProtocolError(f"{value!r} is not a token")
    return value.encode()


def _reason(status: int) -> str:
    return _REASONS.get(status, "")


_REASONS = {
    200: "OK", 201: "Created", 202: "Accepted", 204: "No Content", 304: "Not Modified", 400: "Bad Request",
    401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed", 408: "Request Timeout",
    409: "Conflict", 410: "Gone", 413: "Content Too Large", 414: "URI Too Long", 415: "Unsupported Media Type",
    417: "Expectation Failed", 426: "Upgrade Required", 429: "Too Many Requests", 431: "Request Header Fields Too Large",
    500: "Internal Server Error", 501: "Not Implemented", 503: "Service Unavailable", 505: "HTTP Version Not Supported",
}  # fmt: skip
