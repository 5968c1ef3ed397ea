"""Names of servers, and of users on other servers (PROTOCOL 16.1)."""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple
from urllib.parse import urlsplit

MAX_SERVER_NAME_CHARS = 255  # RFC 1035 2.3.4
HTTPS_PORT = 443
HTTP_PORT = 80

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*", re.ASCII)
_PORT = re.compile(r"[1-9][0-9]{0,4}", re.ASCII)
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII)
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)
_KEY_ID = re.compile(r"[A-Za-z0-9_.:-]{1,64}", re.ASCII)


class NameFault(ValueError):
    """A name is not well formed. The message does not quote it."""


def parse_server_name(text: str) -> str:
    """Return `text` if it is a server name in canonical form: `host`, or `host:port` with a port other than 443.

    The host is a DNS name in lower case, an IPv4 address, or an IPv6 address in brackets. Raises NameFault.
    """
    if not text or len(text) > MAX_SERVER_NAME_CHARS:
        raise NameFault(f"a server name has 1 to {MAX_SERVER_NAME_CHARS} characters")
    host, port = split_name(text)
    if port is not None and port == HTTPS_PORT:
        raise NameFault("a server name must not contain the default port 443")
    _check_host(host)
    return text


def split_name(name: str) -> tuple[str, int | None]:
    """Return the host, with brackets for an IPv6 address, and the port or None. Raises NameFault."""
    host, colon, port = name, "", ""
    if not name.endswith("]"):
        host, colon, port = name.rpartition(":")
        if not colon:
            host, port = name, ""
    if colon and (_PORT.fullmatch(port) is None or int(port) > 65_535):
        raise NameFault("the port of a server name must be between 1 and 65535")
    return host, int(port) if colon else None


def _check_host(host: str) -> None:
    if host.startswith("["):
        try:
            address = ipaddress.IPv6Address(host[1:-1])
        except ValueError:
            address = None
        if address is None or "%" in host or f"[{address.compressed}]" != host or address.ipv4_mapped is not None:
            raise NameFault("the address in a server name must be in its canonical form (RFC 5952)")
        return
    if _HOST.fullmatch(host) is None:
        raise NameFault("a server name must be a DNS name in lower case or an IP address")
    if _NUMBER.fullmatch(host.rpartition(".")[2]) is not None:  # URL parsers take such a name for an address
        try:
            ipaddress.IPv4Address(host)
        except ValueError:
            raise NameFault("the last label of a server name must not be a number") from None


def parse_key_id(text: str) -> str:
    """Return `text` if it is a valid key id. Raises NameFault."""
    if _KEY_ID.fullmatch(text) is None:
        raise NameFault("a key id has 1 to 64 letters, digits and the characters _.:-")
    return text


def parse_user_id(text: str) -> str:
    """Return `text` if it is a UUID in canonical form (PROTOCOL 1.2.1). Raises NameFault."""
    if _UUID.fullmatch(text) is None:
        raise NameFault("must be a UUID in lower case with hyphens")
    return text


def authority_of(url: str) -> str:
    """Return the authority of an http or https URL, in lower case, without the scheme's default port.

    Raises NameFault for a URL with a user, a path, a query or a fragment.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise NameFault("not a URL") from None
    plain = parts.path in {"", "/"} and not (parts.query or parts.fragment or "@" in parts.netloc)
    if parts.scheme not in {"http", "https"} or not host or not plain:
        raise NameFault("not the URL of a server, such as https://chat.example.org")
    host = f"[{host}]" if ":" in host else host
    _check_host(host)
    default = HTTPS_PORT if parts.scheme == "https" else HTTP_PORT
    return host if port is None or port == default else f"{host}:{port}"


class RemoteName(NamedTuple):
    """A user of another server; written `@<uuid>:<server>`."""

    user_id: str
    server: str

    @classmethod
    def parse(cls, text: str) -> RemoteName:
        """Parse the canonical form. Raises NameFault."""
        user_id, colon, server = text.removeprefix("@").partition(":")
        if not text.startswith("@") or not colon:
            raise NameFault("a user of another server must be written as @<uuid>:<server>")
        return cls(parse_user_id(user_id), parse_server_name(server))

    def __str__(self) -> str:
        return f"@{self.user_id}:{self.server}"
