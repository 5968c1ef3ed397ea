"""One side of HTTP/1.1: whole requests out (reader.py), response bytes back."""

from __future__ import annotations

from typing import Any

import h11

from openguild_proto.errors import LocalProtocolError
from openguild_proto.http import quick, strictness
from openguild_proto.http.message import Headers, Response
from openguild_proto.http.reader import HttpPhase, RequestReader


class HttpConnection(RequestReader):
    """Reads requests and answers them, one at a time, in their order (RFC 9112 9.3.2)."""

    __slots__ = ()

    def continue_bytes(self) -> bytes:
        """The interim response to Expect: 100-continue (RFC 9110 10.1.1)."""
        self.continue_due = False
        return self._send(h11.InformationalResponse, status_code=100, headers=[], reason="Continue")

    def answer(self, response: Response) -> tuple[bytes, bool]:
        """Bytes of the response to the request being answered, and whether the connection lives on."""
        if self.phase is not HttpPhase.ANSWERING:
            raise LocalProtocolError("there is no request to answer")
        data = self._response_bytes(response)
        if response.close or not (self._bypasses_h11 or self._h11_is_done):
            self.end()
            return data, False
        if not self._bypasses_h11:
            self._h11.start_next_cycle()
        self._request = None
        self._begin()
        return data, True

    @property
    def _h11_is_done(self) -> bool:
        return self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE

    def refuse(self, response: Response) -> bytes:
        """Bytes of the last response of this connection: to a head or body that cannot be trusted."""
        data = self._response_bytes(response)
        self.end()
        return data

    def _response_bytes(self, response: Response) -> bytes:
        headers = self._policy.apply(response, self._request, self.request_id)
        if response.status >= 200 and response.status not in {204, 304}:
            headers.append((b"content-length", str(len(response.body)).encode()))
        if response.close:
            headers.append((b"connection", b"close"))
        head_only = self._request is not None and self._request.method == "HEAD"
        body = b"" if head_only or response.status in {204, 304} else response.body
        if self._bypasses_h11:
            return quick.response_bytes(response.status, _reason(response.status), headers, body)
        data = self._send(h11.Response, status_code=response.status, headers=headers, reason=_reason(response.status))
        if body:
            data += self._send(h11.Data, data=body)
        if self._h11.our_state is h11.SEND_BODY:
            data += self._send(h11.EndOfMessage)
        return data

    def switch(self, accept_token: bytes, subprotocol: str | None, more: Headers = ()) -> bytes:
        """Bytes of 101 Switching Protocols (RFC 6455 4.2.2), with `more` headers."""
        if self.phase is not HttpPhase.ANSWERING or self._request is None:
            raise LocalProtocolError("there is no upgrade to accept")
        headers = [(b"upgrade", b"websocket"), (b"connection", b"Upgrade"), (b"sec-websocket-accept", accept_token)]
        if subprotocol is not None:
            headers.append((b"sec-websocket-protocol", _token(subprotocol)))
        headers += self._policy.apply(Response(status=101, headers=more), self._request, self._request.request_id)
        return self._send(h11.InformationalResponse, status_code=101, headers=headers, reason="Switching Protocols")

    def _send(self, event: type[h11.Event], **fields: Any) -> bytes:
        try:
            return self._h11.send(event(**fields)) or b""
        except h11.LocalProtocolError as misuse:
            raise LocalProtocolError(str(misuse)) from misuse


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
