"""Header policy: security headers, X-Request-Id, CORS, and the client's address behind trusted proxies.

It applies to every response (PROTOCOL 2.5 to 2.7).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache

import msgspec

from openguild_proto.errors import LocalProtocolError
from openguild_proto.http.fields import field_line, field_name
from openguild_proto.http.message import Headers, Request, Response
from openguild_proto.limits import MAX_REQUEST_ID_CHARS
from openguild_proto.policy.addresses import Network, parse_address, parse_network
from openguild_proto.timestamps import http_date
from openguild_proto.uuids import new_uuid

# no-store: a cache that keys by the URL alone would give one user's response to others.
SECURITY_HEADERS: Headers = (
    ("cache-control", "no-store"),
    ("content-security-policy", "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"),
    ("referrer-policy", "no-referrer"),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
)
CORS_METHODS = "GET,POST,PUT,PATCH,DELETE,OPTIONS"
CORS_REQUEST_HEADERS = "authorization, content-type, x-request-id, x-device-id, idempotency-key"  # PROTOCOL 2.6.4
# Scripts of other origins may read these.
CORS_EXPOSED = (
    "x-request-id, x-next-after, x-next-cursor, x-openguild-epoch, x-openguild-head, retry-after"
    ", ratelimit, ratelimit-policy"
)
CORS_MAX_AGE_SECS = 600
VARY = "origin, access-control-request-method, access-control-request-headers"

_REQUEST_ID = re.compile(rf"[A-Za-z0-9._:-]{{1,{MAX_REQUEST_ID_CHARS}}}")
_ORIGIN = re.compile(r"https?://(\[[0-9a-f:.]+\]|[a-z0-9.-]+)(:[0-9]{1,5})?|[a-z][a-z0-9+.-]*://[a-z0-9.-]*")


def _encoded(headers: Headers) -> list[tuple[bytes, bytes]]:
    """Encode headers. Raises LocalProtocolError for a name or value that cannot be sent."""
    try:
        return [(field_name(name), value.encode("latin-1")) for name, value in headers]
    except UnicodeEncodeError as misuse:
        raise LocalProtocolError(f"the value of a header is not Latin-1: {misuse.object!r}") from None
    except (AttributeError, TypeError, ValueError):
        raise LocalProtocolError("headers are pairs of a name and a value, both str") from None


_SECURITY = _encoded(SECURITY_HEADERS)
_CORS_NAMES = ("allow-origin", "allow-methods", "allow-headers", "expose-headers", "max-age")
_REPLACEABLE = frozenset(
    [
        b"content-type",
        b"date",
        *(name for name, _ in _SECURITY),
        *(f"access-control-{name}".encode() for name in _CORS_NAMES),
    ]
)
NO_NAMES: frozenset[bytes] = frozenset()


@lru_cache(maxsize=256)  # called for each response, mostly with the few configured origins
def _prepared_lines(
    content_type: str | None, replaced: frozenset[bytes], admitted: str | None, is_preflight: bool
) -> tuple[bytes, bytes]:
    """Return the lines of the content type and the security headers, and those of CORS, without the `replaced` headers."""
    before = [*_content_type(content_type), *_SECURITY]
    return _joined(before, replaced), _joined(_cors_headers(admitted, is_preflight), replaced)


def _content_type(content_type: str | None) -> list[tuple[bytes, bytes]]:
    return [] if content_type is None else _encoded((("content-type", content_type),))


def _joined(headers: Iterable[tuple[bytes, bytes]], but: frozenset[bytes] = NO_NAMES) -> bytes:
    return b"".join([field_line(name, value) for name, value in headers if name not in but])


@lru_cache(maxsize=8)  # shared by all responses of a second
def _date_line(seconds: int) -> bytes:
    return f"date: {http_date(seconds)}\r\n".encode("ascii")


@lru_cache(maxsize=64)
def _cors_headers(admitted: str | None, is_preflight: bool) -> tuple[tuple[bytes, bytes], ...]:
    headers: Headers = (("vary", VARY), ("access-control-expose-headers", CORS_EXPOSED))
    if admitted is not None:
        headers += (("access-control-allow-origin", admitted),)
        if is_preflight:
            headers += (
                ("access-control-allow-methods", CORS_METHODS),
                ("access-control-allow-headers", CORS_REQUEST_HEADERS),
                ("access-control-max-age", str(CORS_MAX_AGE_SECS)),
            )
    return tuple(_encoded(headers))


class HeaderPolicy(msgspec.Struct, frozen=True):
    """The headers of every response, the allowed origins of browsers, and the client's address behind proxies. Use `create`.

    - `cors_allowed_origins`: compared exactly, for requests and for WebSocket upgrades; empty or "*" allows any.
    - `trusted_proxies`: networks whose X-Forwarded-For is trusted.
    - `wall()`: the time in UTC seconds, such as `time.time`, for Date; None: no clock, so no Date is sent (RFC 9110 6.6.1).

    A header of a response, such as content-security-policy or access-control-allow-origin, replaces the policy's.
    """

    cors_allowed_origins: tuple[str, ...] = ()
    trusted_proxies: tuple[Network, ...] = ()
    wall: Callable[[], float] | None = None

    @classmethod
    def create(
        cls,
        *,
        cors_allowed_origins: tuple[str, ...] = (),
        trusted_proxies: tuple[str, ...] = (),
        wall: Callable[[], float] | None = None,
    ) -> HeaderPolicy:
        """Create the policy. Raises ValueError for an invalid entry: a bad list never admits any origin (PROTOCOL 2.6.1)."""
        both: tuple[object, ...] = cors_allowed_origins, trusted_proxies
        if any(isinstance(entries, str | bytes) for entries in both):  # else each letter would be an entry
            raise ValueError("origins and proxies are tuples of entries, not one text")
        for origin in cors_allowed_origins:
            if origin != "*" and _ORIGIN.fullmatch(origin) is None:
                raise ValueError(f"{origin!r} is not an origin such as https://chat.example.org")
        return cls(cors_allowed_origins, tuple(map(parse_network, trusted_proxies)), wall)

    def apply(self, response: Response, request: Request | None, request_id: str) -> list[tuple[bytes, bytes]]:
        """Return all headers of `response` except framing. Headers of the response replace those of the policy.

        Raises LocalProtocolError for an invalid value.
        """
        own = _encoded(response.headers)
        replaced = _REPLACEABLE.intersection([name for name, _ in own])
        request_line = (b"x-request-id", request_id.encode("latin-1"))
        policy = (
            *_content_type(response.content_type),
            *_SECURITY,
            request_line,
            *_cors_headers(*self._admitted(request)),
            *([] if self.wall is None else [(b"date", http_date(int(self.wall())).encode("ascii"))]),
        )
        headers = [*own, *(header for header in policy if header[0] not in replaced)]
        _joined(headers)  # raises for control characters, most of which h11 would send
        return headers

    def lines(self, response: Response, request: Request | None, request_id: str) -> bytes:
        """Return the headers of `apply` as lines, most of them cached. Raises LocalProtocolError for an invalid value."""
        own, replaced = b"", NO_NAMES
        if response.headers:
            encoded = _encoded(response.headers)
            own = _joined(encoded)
            replaced = _REPLACEABLE.intersection([name for name, _ in encoded])
        before, after = _prepared_lines(response.content_type, replaced, *self._admitted(request))
        date = b"" if self.wall is None or b"date" in replaced else _date_line(int(self.wall()))
        if _REQUEST_ID.fullmatch(request_id) is None:
            return b"".join((own, before, field_line(b"x-request-id", request_id.encode("latin-1")), after, date))
        return b"".join((own, before, b"x-request-id: ", request_id.encode("ascii"), b"\r\n", after, date))

    def _admitted(self, request: Request | None) -> tuple[str | None, bool]:
        """Return the origin that may read the response, and whether the request is a preflight."""
        is_preflight = request is not None and request.method == "OPTIONS"
        allowed = self.cors_allowed_origins
        if not allowed or "*" in allowed:
            return "*", is_preflight
        origin = request.header("origin") if request is not None else None
        return origin if origin in allowed else None, is_preflight

    def admits_stream(self, request: Request) -> bool:
        """Return whether the Origin may open a WebSocket, which CORS does not protect (RFC 6455 10.2).

        Clients other than browsers send no Origin and are admitted. `null` and a repeated header are refused.
        """
        origins = request.all_headers("origin")
        allowed = self.cors_allowed_origins
        if not origins or not allowed or "*" in allowed:
            return True
        return len(origins) == 1 and origins[0] in allowed

    def client_address(self, peer: str, headers: Headers) -> str:
        """Return the client's address: the peer, or behind trusted proxies the right-most untrusted hop (PROTOCOL 2.7.1).

        Limits are keyed by `policy.addresses.limit_key` of it.
        """
        if not self.is_trusted(peer):
            return peer
        hops = [hop.strip() for name, value in headers if name == "x-forwarded-for" for hop in value.split(",")]
        client = peer
        for hop in reversed(hops):
            address = _plain_address(hop)
            if address is None:
                break  # hops left of an invalid one cannot be trusted
            client = address
            if not self.is_trusted(address):
                break
        return client

    def is_trusted(self, address: str) -> bool:
        """Return whether the address belongs to a trusted proxy."""
        if not self.trusted_proxies:
            return False
        parsed = parse_address(address)
        return parsed is not None and any(
            parsed in network for network in self.trusted_proxies if parsed.version == network.version
        )


def _plain_address(hop: str) -> str | None:
    """Return the address without port and brackets, or None if it is invalid."""
    text = hop.strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    parsed = parse_address(text)
    return str(parsed) if parsed is not None else None


def request_id_for(headers: Headers, random_bytes: Callable[[int], bytes]) -> str:
    """Return the client's request id if it is valid, else a new UUIDv4 (PROTOCOL 2.5.2)."""
    for name, value in headers:
        if name == "x-request-id" and _REQUEST_ID.fullmatch(value):
            return value
    return new_uuid(random_bytes)
