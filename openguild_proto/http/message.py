"""The request that an operation receives, and the response or stream that it returns."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

Headers = tuple[tuple[str, str], ...]

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"
EPOCH_HEADER = "x-openguild-epoch"  # of the channel's log (PROTOCOL 7.2.2)
METHODS = frozenset(
    {"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"}
)  # RFC 9110 9.1, RFC 5789
OTHER_METHOD = "other"


class Request(msgspec.Struct, frozen=True, gc=False):
    """A whole, valid request. Its body is complete and within its limit."""

    method: str
    path: str  # raw path as sent, before percent-decoding, without the query
    query: str  # raw query without '?', '' when absent
    headers: Headers  # names lower case, values stripped, latin-1 decoded, in order of arrival
    body: bytes = b""
    http_version: str = "1.1"
    request_id: str = ""  # of the client, or generated (PROTOCOL 2.5.2)
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
    """The server that asked, for the operator. `ahead_secs`: of its clock, before ours."""

    server: str
    ahead_secs: float


class Response(msgspec.Struct, frozen=True, gc=False):
    """A whole response. The connection adds framing, security headers, CORS and X-Request-Id (`HeaderPolicy`).

    Create it with `json`, `text` or `empty`, or with `status` (200 to 599), `body`, `headers` and `content_type`. An embedder needs
    no other field but `close`. The framing (`content-length`, `connection`) is the connection's; a body with 204, 205, 304 or to
    HEAD is not sent.
    """

    status: int
    body: bytes = b""
    headers: Headers = ()
    content_type: str | None = None
    rejection: str | None = None  # counted in openguild_messaging_rejections_total{reason}
    route: str = "unmatched"  # template for the metrics; the dispatcher fills it in
    close: bool = False  # close the connection after this response
    log_cause: str | None = None  # for the log and the metrics only: why, where the caller is not told
    error: str | None = None  # the `error` member of the body
    detail: str | None = None  # what else the body tells of the error, in a line for the operator
    user_id: str | None = None  # of the caller, for the operator; the dispatcher fills it in
    peer: PeerSeen | None = None  # whose signature was good; the dispatcher fills it in

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

    The socket authenticates afterwards. The runtime releases its place in `StreamLimiter` at its end.
    """

    encoding: str  # a name of `gateway.encoding.SUBPROTOCOLS`
    address: str  # key under which the socket's place is reserved
    subprotocol: str | None = None  # to echo
    token: str | None = None  # of the upgrade's header or subprotocol
    request_id: str = ""
    headers: Headers = ()  # of the 101
    route: str = "unmatched"


class OpenStream(msgspec.Struct, frozen=True, gc=False):
    """Returned by an operation, instead of a response, to accept an upgrade (PROTOCOL 8).

    The runtime accepts the handshake, joins the stream, and releases the socket's place in `StreamLimiter` at its end.
    """

    user_id: str
    session_id: str
    verified_by: bytes  # public key that verified the token: close 4401 when it is withdrawn
    expires_ms: int  # UTC milliseconds at which the token expires: close 4401
    channel_id: str | None  # None: the caller's notification stream
    address: str = ""  # key under which the socket's place is reserved (policy/addresses.py)
    guild_id: str | None = None
    since: int | None = None  # last sequence the client has; None: the newest `replay_window` events
    replay_window: int = 0  # events
    head: int = 0  # the channel's newest sequence when access was checked
    epoch: int | None = None  # of the log of `since` and `head`
    subprotocol: str | None = None  # "openguild.v1" when the client offered it
    headers: Headers = ()  # of the 101
    request_id: str = ""  # of the upgrade; in every log record of this stream
    route: str = "unmatched"

    def accepted(self) -> OpenStream:
        """Return what is kept of it for as long as the stream is open: not the headers of the 101, which is sent."""
        return msgspec.structs.replace(self, headers=())
