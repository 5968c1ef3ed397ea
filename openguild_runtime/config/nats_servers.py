"""Parses `nats.url` and `nats.credentials_file`. Errors are ValueError and never quote a value."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import nkeys

SCHEMES = ("nats", "tls")
EXAMPLE = "nats://host:4222"
LIST_EXAMPLE = "nats://a:4222,nats://b:4222"
DEFAULT_PORT = 4222
MAX_SERVERS = 64  # an arbitrary bound
MAX_CREDENTIALS_BYTES = 64 * 1024  # enough for a JWT with thousands of permissions

_BETWEEN = re.compile(
    r",(?=\s{0,16}[A-Za-z][A-Za-z0-9+.-]{0,15}://)"
)  # only a comma before a scheme, since a password may contain commas
_HOST_AND_PORT = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9._~-]+))(?::(?P<port>[0-9]{1,5}))?")
_JWT = re.compile(r"-----BEGIN NATS USER JWT-----\s*\n\s*[\w-]+\.[\w-]+\.[\w-]+\s*\n")
_SEED = re.compile(r"-----BEGIN USER NKEY SEED-----\s*\n\s*(SU[A-Z2-7]+)\s*\n")


class NatsServer(NamedTuple):
    """A server and its login. `host` is as in a URL, with an IPv6 address in brackets."""

    host: str
    port: int
    tls: bool
    user: str | None = None
    password: str | None = None
    token: str | None = None

    @property
    def url(self) -> str:
        """The URL without user, password and token."""
        return f"{'tls' if self.tls else 'nats'}://{self.name}"

    @property
    def name(self) -> str:
        """The name for the log."""
        return f"{self.host}:{self.port}"

    def __repr__(self) -> str:
        return f"<NATS server {self.name}>"  # without secrets, since tracebacks may show it


def parse_servers(text: str) -> tuple[NatsServer, ...]:
    """Parse one URL, or several separated by commas."""
    parts = [part.strip() for part in _BETWEEN.split(text)]
    if len(parts) > MAX_SERVERS:
        raise ValueError(f"names more than {MAX_SERVERS} servers; remove some")
    if len(parts) == 1:
        return (_parse(parts[0]),)
    servers = []
    for number, part in enumerate(parts, start=1):
        try:
            servers.append(_parse(part))
        except ValueError as failure:
            raise ValueError(f"its server {number} of {len(parts)}: {failure}") from None
    return tuple(servers)


def _parse(text: str) -> NatsServer:
    scheme, separator, rest = text.partition("://")
    if separator and scheme.lower() in ("ws", "wss"):
        raise ValueError(
            f"WebSocket URLs of NATS are not supported; write its client port as {EXAMPLE} or tls://host:4222"
        )
    if not separator or scheme not in SCHEMES or re.search(r"[\s\x00-\x1f\x7f]", text):
        raise ValueError(f"does not begin with nats:// or tls://; write it as {EXAMPLE}, several as {LIST_EXAMPLE}")
    userinfo, at, place = re.split(r"[/?#]", rest, maxsplit=1)[0].rpartition("@")
    if not place:
        raise ValueError(f"has no host; write it as {EXAMPLE}")
    if "," in place:
        raise ValueError(
            f"each server of a list must begin with nats:// or tls://; write it as {LIST_EXAMPLE} "
            "(in a password, write a comma as %2C)"
        )
    host, port = _host_and_port(place)
    server = NatsServer(host, port, scheme == "tls")
    return _with_login(server, userinfo) if at else server


def _host_and_port(place: str) -> tuple[str, int]:
    found = _HOST_AND_PORT.fullmatch(place)
    port = int(found["port"] or DEFAULT_PORT) if found is not None else 0
    try:
        if found is not None and found["v6"] is not None:
            ipaddress.IPv6Address(found["v6"])
    except ValueError:
        found = None
    if found is None or not 0 < port < 65_536:
        raise ValueError(
            f"has an invalid host, or a port that is not between 1 and 65535; write it as {EXAMPLE} "
            "(in a password, write / as %2F and @ as %40; write an IPv6 address in brackets)"
        )
    return (f"[{found['v6']}]" if found["v6"] is not None else found["name"]), port


def _with_login(server: NatsServer, userinfo: str) -> NatsServer:
    """Add the login of `user:password@` or `token@`, which are percent-encoded (RFC 3986 3.2.1)."""
    user, colon, password = userinfo.partition(":")
    try:
        user, password = unquote(user, errors="strict"), unquote(password, errors="strict")
    except UnicodeDecodeError:
        raise ValueError(
            "the percent-encoded user or password is not UTF-8; encode it as UTF-8 (write % as %25)"
        ) from None
    if not user:
        raise ValueError(
            "has no user before the @; write it as nats://user:password@host:4222 or nats://token@host:4222"
        )
    return server._replace(user=user, password=password) if colon else server._replace(token=user)


def read_credentials(path: Path) -> str:
    """Read and check a .creds file. Raises ValueError and OSError."""
    with path.open("rb") as file:
        text = file.read(MAX_CREDENTIALS_BYTES).decode("ascii")
    _check_credentials(text)
    return text


def _check_credentials(text: str) -> None:
    """Check for JWT and seed. Without a JWT, nats-py would read the file forever."""
    if _JWT.search(text) is None:
        raise ValueError("contains no NATS USER JWT")
    seed = _SEED.search(text)
    if seed is None:
        raise ValueError("contains no USER NKEY SEED")
    try:
        nkeys.from_seed(bytearray(seed[1].encode())).wipe()
    except Exception:  # of nkeys, binascii or nacl
        raise ValueError("contains an invalid USER NKEY SEED") from None
