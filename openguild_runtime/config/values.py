"""Types of the configuration's values, with their checks. A check's text names the problem and the fix.

Texts never quote a value, which may be a secret. faults.py prepends the key.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, SecretStr

from openguild_proto.canonical.keys import parse_public, parse_seed
from openguild_proto.http.headers import HeaderPolicy
from openguild_proto.policy.addresses import parse_network
from openguild_runtime.config.database_parameters import driver_query
from openguild_runtime.config.nats_servers import EXAMPLE as NATS_EXAMPLE
from openguild_runtime.config.nats_servers import parse_servers

DATABASE_EXAMPLE = "postgresql://user:password@host:5432/database"
HTTP_EXAMPLE = "http://host:4318"
EXAMPLE = "{example}"  # replaced by faults.py with an example for the key
MAX_SERVER_NAME_CHARS = 255

MAX_STATEMENTS = 10_000  # prepared statements of one connection
MAX_NUMBER_BITS = 64

_HOST_AND_PORT = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._%~-]*)(?::(?P<port>[0-9]{1,5}))?")
_SERVER_NAME = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)(?::[0-9]{1,5})?")
ENCODED = "in a user name or password, write @ as %40, / as %2F, # as %23, ? as %3F"
_USERINFO = re.compile(r"(?<=://)[^/?#]*@")


def split_address(text: str) -> tuple[str, int]:
    """Split `host:port` or `[v6]:port`. Raises ValueError."""
    host, colon, port = text.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()):
        raise ValueError("expected host:port, such as 127.0.0.1:8080 or [::1]:8080")
    return host.strip("[]"), int(port)


def check_url(text: str, schemes: tuple[str, ...], example: str, *, many_hosts: bool = False) -> str:
    """Check that a URL has one of the schemes, valid hosts and ports, and return its query. Raises ValueError."""
    scheme, separator, rest = text.partition("://")
    if separator and scheme.strip() in schemes and re.search(r"[\s\x00-\x1f\x7f]", text):
        raise ValueError(f"contains a space or a line break, perhaps at its end; remove it, as in {example}")
    if not separator or scheme not in schemes:
        known = " or ".join(f"{known}://" for known in schemes)
        raise ValueError(f"does not begin with {known}; write it as {example}")
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if authority.count("@") > 1:
        raise ValueError(f"has a second @; write it as {example} ({ENCODED})")
    named = authority.rpartition("@")[2]
    for part in named.split(",") if many_hosts else (named,):
        found = _HOST_AND_PORT.fullmatch(part)
        if found is None or (found["port"] is not None and not 0 < int(found["port"]) < 65_536):
            raise ValueError(
                f"has an invalid host, or a port that is not between 1 and 65535; write it as {example} ({ENCODED})"
            )
        if not found["host"] and not many_hosts:
            raise ValueError(f"has no host; write it as {example}")
    return rest.partition("?")[2].partition("#")[0]


def without_userinfo(text: str) -> str:
    """Return a URL with `***` in place of user and password."""
    return _USERINFO.sub("***@", text)


def _database_url(value: SecretStr) -> SecretStr:
    """Check a database URL, and return it for the driver."""
    text = value.get_secret_value()
    query = check_url(text, ("postgresql", "postgres"), DATABASE_EXAMPLE, many_hosts=True)
    address = text.partition("?")[0]
    if "#" in text or "@" in address.partition("://")[2].partition("/")[2]:  # part of a password taken for the host
        raise ValueError(f"has a # or, after its host, an @; write it as {DATABASE_EXAMPLE} ({ENCODED})")
    query = driver_query(query)
    return SecretStr(address + (f"?{query}" if query else ""))


def _nats_urls(value: Any) -> Any:
    """Join a list of URLs with commas."""
    if not isinstance(value, list | tuple):
        return value
    texts = [text for text in value if isinstance(text, str)]
    if not texts or len(texts) < len(value) or any("://" not in text for text in texts):
        raise ValueError(
            f'is neither a URL nor a list of URLs; write {NATS_EXAMPLE} or ["nats://a:4222", "nats://b:4222"]'
        )
    return ",".join(texts)


def _nats_url(value: SecretStr) -> SecretStr:
    parse_servers(value.get_secret_value())
    return value


def _http_url(value: str) -> str:
    check_url(value, ("http", "https"), HTTP_EXAMPLE)
    return value


def _seed(value: SecretStr) -> SecretStr:
    parse_seed(value.get_secret_value())
    return value


def _public(value: str) -> str:
    parse_public(value)
    return value


def _address(value: str) -> str:
    host, port = split_address(value)
    if not 0 < port < 65_536:
        raise ValueError(
            "port cannot be zero; choose one, such as 8080" if port == 0 else "the port is not between 1 and 65535"
        )
    _ip(host)
    return value


def _ip(value: str) -> str:
    address = value.strip("[]")
    try:
        ipaddress.ip_address(address)
    except ValueError:
        raise ValueError("is not an IP address; write one, such as 127.0.0.1, 0.0.0.0 or [::1]") from None
    return address


def _network(value: str) -> str:
    try:
        parse_network(value)
    except ValueError:
        raise ValueError(
            "is not a network; write its first address and prefix length, such as 10.0.0.0/8, without a zone (%)"
        ) from None
    return value


def _origin(value: str) -> str:
    HeaderPolicy.create(cors_allowed_origins=(value,))
    return value


def _server_name(value: str) -> str:
    if len(value) > MAX_SERVER_NAME_CHARS or _SERVER_NAME.fullmatch(value) is None:
        raise ValueError(
            f"is not a host name of at most {MAX_SERVER_NAME_CHARS} characters; write it without scheme, path or "
            "spaces, such as chat.example.org"
        )
    return value


def _not_blank(value: str) -> str:
    if not value.strip():
        raise ValueError("is empty; set it, or remove the key")
    return value


def _secret_not_blank(value: SecretStr) -> SecretStr:
    _not_blank(value.get_secret_value())
    return value


def _path(value: Any) -> Any:
    if isinstance(value, str):
        _not_blank(value)
        if "\0" in value:
            raise ValueError("contains a NUL character; write a path")
    return value


def _number(value: Any) -> Any:
    """Refuse booleans, which are numbers in Python, and numbers of more than 64 bits."""
    if isinstance(value, bool):
        raise ValueError("is not a number; write one without quotes")  # noqa: TRY004 - pydantic takes ValueError
    if isinstance(value, int) and value.bit_length() > MAX_NUMBER_BITS:
        raise ValueError(f"is not a number, or has too many digits; write one, such as {EXAMPLE}")
    return value


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


DatabaseUrl = Annotated[SecretStr, AfterValidator(_database_url)]
NatsUrl = Annotated[SecretStr, BeforeValidator(_nats_urls), AfterValidator(_nats_url)]
HttpUrl = Annotated[str, AfterValidator(_http_url)]
Seed = Annotated[SecretStr, AfterValidator(_seed)]
PublicKey = Annotated[str, AfterValidator(_public)]
Address = Annotated[str, AfterValidator(_address)]
Ip = Annotated[str, AfterValidator(_ip)]
Network = Annotated[str, AfterValidator(_network)]
Origin = Annotated[str, AfterValidator(_origin)]
ServerName = Annotated[str, AfterValidator(_server_name)]
Text = Annotated[str, AfterValidator(_not_blank)]
SecretText = Annotated[SecretStr, AfterValidator(_secret_not_blank)]
FilePath = Annotated[Path, BeforeValidator(_path)]
Lower = BeforeValidator(_lower)
Number = BeforeValidator(_number)
