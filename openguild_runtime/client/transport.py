"""Addresses and byte streams of the client."""

from __future__ import annotations

import os
import selectors
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias, TypeVar
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
import msgspec
from anyio.abc import ByteStream, SocketAttribute

from openguild_proto.client import ConnectionBroken, Unauthorized
from openguild_proto.diagnosis.certificates import UNKNOWN_AUTHORITY
from openguild_proto.errors import ErrorCode


class NotLoggedIn(Unauthorized, RuntimeError):
    """A request needs a session, and the client has none. Nothing was sent."""

    def __init__(self) -> None:
        spec = ErrorCode.UNAUTHORIZED.spec
        super().__init__(spec.status, spec.code, "log in first")

    def __reduce__(self) -> tuple[type[NotLoggedIn], tuple[object, ...]]:
        """Support pickling."""
        return type(self), ()


class OutcomeUnknown(Exception):
    """It is unknown whether the server performed the request: an attempt got no response, or a post got a 5xx.

    `nonce` is that of a post that may have been stored; post again with it. It is None for other requests.
    """

    def __init__(self, reason: str, nonce: str | None = None) -> None:
        super().__init__(reason)
        self.nonce = nonce


class ClientClosed(RuntimeError):
    """This program has closed the client. Nothing was sent."""

    def __init__(self) -> None:
        super().__init__("the client is closed: create a new one")


class TlsFailed(OSError):
    """The TLS handshake failed: the port does not speak TLS, or the certificate is not trusted."""


T = TypeVar("T")


def decode_answer(body: bytes, kind: type[T]) -> T:
    """Decode a response. Raises OutcomeUnknown if it comes from a proxy or from an incompatible release."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as failure:
        raise OutcomeUnknown(f"unexpected response: {failure}") from failure


RECEIVE_BYTES = 65_536
ATTEMPT_SECS = 20.0
# OpenSSL's reasons for an answer without TLS
NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST"})
AUTHORITIES = ("SSL_CERT_FILE", "SSL_CERT_DIR")  # OpenSSL's environment variables
OWN_AUTHORITY = "; for your own CA, set the environment variable SSL_CERT_FILE to its certificate file"


@dataclass(frozen=True, slots=True)
class Address:
    """The address of a server."""

    host: str
    port: int
    tls: bool

    @classmethod
    def of(cls, url: str) -> Address:
        """Parse `http://host:port` or `https://host`. Raises ValueError."""
        parts = urlsplit(url)
        if "@" in parts.netloc:  # not quoted, since it may contain a password
            raise ValueError(
                "a server's address must not contain a user: expected http://host:port; pass the user to `login`"
            )
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.path not in {"", "/"} or parts.query:
            raise ValueError(f"not a server's address: {url!r}: expected http://host:port")
        tls = parts.scheme == "https"
        return cls(parts.hostname, parts.port or (443 if tls else 80), tls)

    @property
    def authority(self) -> str:
        """The value of the Host header."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


Connect: TypeAlias = Callable[[Address], Awaitable[ByteStream]]

# Raised when the transport fails.
TRANSPORT_ERRORS = (OSError, TimeoutError, anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream)


@lru_cache(maxsize=8)
def _context(cafile: str | None, capath: str | None) -> ssl.SSLContext:
    """Return a context that trusts the system's authorities, or those of the arguments. Cached, because it takes 0.2 s."""
    del cafile, capath  # OpenSSL reads the variables itself
    return ssl.create_default_context()


async def connect_tcp(address: Address) -> ByteStream:
    """Connect with TCP, and TLS if the address requires it. Raises OSError, TlsFailed.

    Connections end without TLS close alerts (RFC 8446 6.1): HTTP and WebSocket mark their ends themselves, and waiting for the
    alert would read from a stream that another task may be reading.
    """
    if not address.tls:
        return await anyio.connect_tcp(address.host, address.port)
    try:
        context = await anyio.to_thread.run_sync(_context, *map(os.environ.get, AUTHORITIES))
        return await anyio.connect_tcp(address.host, address.port, ssl_context=context, tls_standard_compatible=False)
    except ssl.SSLCertVerificationError as failure:
        reason = failure.verify_message.rstrip(".")
        mend = OWN_AUTHORITY if failure.verify_code in UNKNOWN_AUTHORITY else ""
        raise TlsFailed(f"the certificate of {address.authority} is not trusted: {reason}{mend}") from failure
    except ssl.SSLError as failure:
        if failure.reason in NO_TLS:
            raise TlsFailed(f"{address.authority} does not speak TLS: is its address http://?") from failure
        raise


async def receive(stream: ByteStream) -> bytes:
    """Return the next bytes, or b"" at the end of the stream."""
    try:
        return await stream.receive(RECEIVE_BYTES)
    except anyio.EndOfStream:
        return b""


async def close(stream: ByteStream) -> None:
    """Close a stream within a second. Failures of the transport are ignored."""
    with anyio.move_on_after(1, shield=True), suppress(*TRANSPORT_ERRORS):
        await stream.aclose()


def is_stale_connection(stream: ByteStream) -> bool:
    """Return whether an idle connection has ended or has received unexpected bytes. False if it has no socket."""
    sock = stream.extra(SocketAttribute.raw_socket, None)  # noqa: S610 - anyio's, not Django's
    if sock is None:
        return False
    if sock.fileno() < 0:
        return True
    with selectors.DefaultSelector() as look:
        look.register(sock.fileno(), selectors.EVENT_READ)
        return bool(look.select(0))


def describe_failure(failure: BaseException) -> str:
    """Describe a failure. Replaces anyio's "all connection attempts failed" with the error of one attempt."""
    cause: BaseException | None = failure.__cause__
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    if isinstance(failure, TlsFailed):
        return str(failure)
    hidden = isinstance(cause, OSError) and (not isinstance(failure, OSError) or failure.errno is None)
    shown = cause if hidden else failure
    if isinstance(shown, ConnectionBroken):
        return str(shown)
    if isinstance(shown, anyio.BrokenResourceError | anyio.ClosedResourceError | anyio.EndOfStream):
        return "the connection ended"
    if isinstance(shown, TimeoutError) and not str(shown):  # a timeout of this client
        return "no response in time"
    return f"{type(shown).__name__}: {shown}"
