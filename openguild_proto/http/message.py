"""The request that an operation receives, and the response or stream that it returns."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

Headers = tuple[tuple[str, str], ...]

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"
EPOCH_HEADER = "x-openguild-epoch"  # of the channel's log (PROTOCOL 7.2.2)
# RFC 9110 9.1, RFC 5789
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})
OTHER_METHOD = "other"


class Request(msgspec.Struct, frozen=True, gc=False):
    """A complete, valid request. Its body is within its limit."""

    method: str
    path: str  # raw path as sent, before percent-decoding, without the query
    query: str  # raw query without '?', '' if absent
    headers: Headers  # names lower case, values stripped, latin-1 decoded, in order of arrival
    body: bytes = b""
    http_version: str = "1.1"
    request_id: str = ""  # the client's, or generated (PROTOCOL 2.5.2)
    client_address: str = ""  # socket peer or right-most untrusted hop (PROTOCOL 2.7.1), no port
    is_upgrade: bool = False  # a valid WebSocket handshake

    @property
    def shown_method(self) -> str:
        """The method for logs and traces: one of METHODS, or `other`, because a client may send any token."""
        return self.method if self.method in METHODS else OTHER_METHOD

    def header(self, name: str) -> str | None:
        """Return the first value of `name` (lower case), or None."""
        for key, value in self.headers:
            if key == name:
                return value
        return None

    def all_headers(self, name: str) -> list[str]:
        """Return all values of `name` (lower case), in order."""
        return [value for key, value in self.headers if key == name]


class PeerSeen(NamedTuple):
    """The server that sent a request, for the operator. `ahead_secs`: how far its clock is ahead of ours."""

    server: str
    ahead_secs: float


class Response(msgspec.Struct, frozen=True, gc=False):
    """A complete response. The connection adds framing, security headers, CORS and X-Request-Id (`HeaderPolicy`).

    Create it with `json`, `text` or `empty`, or with `status` (200 to 599), `body`, `headers` and `content_type`. An embedder
    needs no other field but `close`. The connection sets the framing (`content-length`, `connection`). The body is not sent
    with 204, 205 and 304, or in response to HEAD.
    """

    status: int
    body: bytes = b""
    headers: Headers = ()
    content_type: str | None = None
    rejection: str | None = None  # counted in openguild_messaging_rejections_total{reason}
    route: str = "unmatched"  # template for the metrics; set by the dispatcher
    close: bool = False  # close the connection after this response
    log_cause: str | None = None  # the cause, for the log and the metrics; not sent to the caller
    error: str | None = None  # the `error` member of the body
    detail: str | None = None  # the rest of the error body in one line, for the operator
    user_id: str | None = None  # the caller, for the operator; set by the dispatcher
    peer: PeerSeen | None = None  # the server that signed the request; set by the dispatcher

    @classmethod
    def json(cls, value: Any, *, status: int = 200, headers: Headers = ()) -> Response:
        """Return a response with `value` as JSON. Raises TypeError for a value that msgspec cannot encode."""
        return cls(status=status, body=msgspec.json.encode(value), headers=headers, content_type=JSON)

    @classmethod
    def text(cls, text: str, *, status: int = 200) -> Response:
        """Return a response with `text` as UTF-8 plain text."""
        return cls(status=status, body=text.encode(), content_type=TEXT)

    @classmethod
    def empty(cls, status: int = 204) -> Response:
        """Return a response without a body."""
        return cls(status=status)


class OpenGateway(msgspec.Struct, frozen=True, gc=False):
    """Returned by an operation, instead of a response, to accept an upgrade to the gateway (PROTOCOL 15).

    The socket authenticates afterwards. The runtime releases its place in `StreamLimiter` when it ends.
    """

    encoding: str  # a key of `gateway.encoding.SUBPROTOCOLS`
    address: str  # key under which the socket's place is reserved
    subprotocol: str | None = None  # to return in the 101
    token: str | None = None  # from the Authorization header or the subprotocol
    request_id: str = ""
    headers: Headers = ()  # of the 101
    route: str = "unmatched"


class OpenStream(msgspec.Struct, frozen=True, gc=False):
    """Returned by an operation, instead of a response, to accept an upgrade (PROTOCOL 8).

    The runtime accepts the handshake, joins the stream, and releases the socket's place in `StreamLimiter` when it ends.
    """

    user_id: str
    session_id: str
    verified_by: bytes  # public key that verified the token: close 4401 when it is withdrawn
    expires_ms: int  # UTC milliseconds at which the token expires: close 4401
    channel_id: str | None  # None: the caller's notification stream
    address: str = ""  # key under which the socket's place is reserved (policy/addresses.py)
    guild_id: str | None = None
    since: int | None = None  # last sequence that the client has; None: start with the newest `replay_window` events
    replay_window: int = 0  # events
    head: int = 0  # the channel's newest sequence when access was checked
    epoch: int | None = None  # of the log of `since` and `head`
    subprotocol: str | None = None  # "openguild.v1" when the client offered it
    headers: Headers = ()  # of the 101
    request_id: str = ""  # of the upgrade; in every log record of this stream
    route: str = "unmatched"

    def accepted(self) -> OpenStream:
        """Return the part to keep while the stream is open: without the headers of the 101, which was sent."""
        return msgspec.structs.replace(self, headers=())
