"""The parameters of a database URL, after its `?`. Errors are ValueError and never quote a value.

libpq (pg_dump, psql) and the driver read the same URL, and libpq has more parameters. The driver would send those to PostgreSQL
as settings, so they are removed if they have no effect here, and refused if the driver cannot comply with them.
https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote_plus

SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
VERIFYING = frozenset({"verify-ca", "verify-full"})
FILES = ("sslrootcert", "sslcert", "sslkey", "sslcrl")

_TLS_VERSIONS = ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")
_PROVE = "remove it, and use sslmode=verify-full with sslrootcert to verify the server"

# Parameters of the driver, with the accepted values if these are few.
_DRIVER: dict[str, tuple[str, ...]] = {
    "host": (), "port": (), "dbname": (), "database": (), "user": (), "password": (), "passfile": (), "service": (),
    "sslcert": (), "sslkey": (), "sslrootcert": (), "sslcrl": (), "sslpassword": (), "krbsrvname": (),
    "sslmode": SSL_MODES,
    "sslnegotiation": ("postgres", "direct"),
    "ssl_min_protocol_version": _TLS_VERSIONS,
    "ssl_max_protocol_version": _TLS_VERSIONS,
    "target_session_attrs": ("any", "read-write", "read-only", "primary", "standby", "prefer-standby"),
    "gsslib": ("gssapi", "sspi"),
}  # fmt: skip

# Parameters of libpq without effect here: the server has its own timeouts and finds the primary, and texts are UTF-8.
_WITHOUT_EFFECT = frozenset({
    "connect_timeout", "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout",
    "client_encoding", "fallback_application_name", "load_balance_hosts", "sslcompression", "sslsni",
    "max_protocol_version",
})  # fmt: skip

# Parameters that the driver does not support: the values that change nothing, and the fix for others.
_NOT_KEPT: dict[str, tuple[tuple[str, ...], str]] = {
    "channel_binding": (("disable", "prefer"), _PROVE),
    "require_auth": ((), _PROVE),
    "requirepeer": ((), "remove it"),
    "gssencmode": (("disable", "prefer"), "remove it, and use sslmode=require: only TLS encryption is supported"),
    "gssdelegation": (("0",), "remove it"),
    "requiressl": (("0",), "write sslmode=require"),
    "sslcertmode": (("disable", "allow"), "remove it: the certificate in sslcert is sent if the server asks for one"),
    "sslcrldir": ((), "name one file in sslcrl instead"),
    "sslkeylogfile": ((), "remove it"),
    "hostaddr": ((), "write the address as the host"),
    "replication": (("false", "off", "no", "0"), "remove it"),
    "min_protocol_version": (("3.0",), "remove it"),
    "servicefile": ((), "set the environment variable PGSERVICEFILE to the file"),
    "scram_client_key": ((), "use a password"),
    "scram_server_key": ((), "use a password"),
    "oauth_issuer": ((), "use a password"),
    "oauth_client_id": ((), "use a password"),
    "oauth_client_secret": ((), "use a password"),
    "oauth_scope": ((), "use a password"),
    # of other programs, in URLs that database providers show
    "ssl": (("false", "0"), "write sslmode=require"),
    "pgbouncer": (("false",), "remove it, and set database.statement_cache_size to 0"),
    "schema": ((), "write options=-csearch_path%3D followed by the schema"),
}

_KNOWN = (*_DRIVER, *_WITHOUT_EFFECT, *_NOT_KEPT, "application_name", "options")
_SETTING = re.compile(r"[A-Za-z_][A-Za-z0-9_$]*(?:\.[A-Za-z_][A-Za-z0-9_$]*)*")
_CLOSE = 0.85  # similarity of a misspelt name
# PostgreSQL's settings with names similar to parameters of libpq.
_NO_TYPING_ERRORS = frozenset({"tcp_keepalives_idle", "tcp_keepalives_interval", "tcp_keepalives_count"})


def driver_query(query: str) -> str:
    """Return the query of a database URL for the driver. Raises ValueError."""
    kept, found = [], dict[str, str]()
    for field in filter(None, query.split("&")):
        name, equals, value = (unquote_plus(part) for part in field.partition("="))
        if not equals or _SETTING.fullmatch(name) is None:
            raise ValueError("has a parameter after its ? that is not name=value (in a password, write ? as %3F)")
        if _is_kept(name, value):
            kept.append(field)
            found[name] = value
    if found.get("sslnegotiation") == "direct" and found.get("sslmode") not in (*VERIFYING, "require"):
        raise ValueError("sslnegotiation=direct requires TLS: add sslmode=require, or remove it")
    return "&".join(kept)


def _is_kept(name: str, value: str) -> bool:
    if name in _WITHOUT_EFFECT:
        return False
    if name in _NOT_KEPT:
        nothing, mend = _NOT_KEPT[name]
        if value not in nothing:
            raise ValueError(f"the parameter {name} is not supported; {mend}")
        return False
    if name not in _KNOWN:
        _check_setting(name)
    elif name in _DRIVER:
        _check(name, value)
    return True


def _check(name: str, value: str) -> None:
    values = _DRIVER[name]
    if values and value not in values:
        raise ValueError(f"unknown value of the parameter {name}; expected one of {', '.join(values)}")
    if name == "port" and not all(port.isascii() and port.isdigit() for port in value.split(",")):
        raise ValueError("the port after the ? is not a number; write it after the host, as host:5432")
    if name == "sslrootcert" and value == "system":
        raise ValueError(
            "sslrootcert=system is not supported; name the file with the system's CA certificates, such as "
            "/etc/ssl/certs/ca-certificates.crt"
        )


def _check_setting(name: str) -> None:
    """Raise ValueError for a misspelt parameter. Only PostgreSQL knows whether a setting exists."""
    close = difflib.get_close_matches(name.lower(), _KNOWN, n=1, cutoff=_CLOSE)
    if close and name.lower() not in _NO_TYPING_ERRORS:
        raise ValueError(f"has an unknown parameter after its ?; did you mean {close[0]}?")


def parameters_of(url: str) -> dict[str, str]:
    """Return the parameters of a database URL. Like the driver, uses the last one with a name and ignores empty ones."""
    fields = (field.partition("=") for field in url.partition("?")[2].split("&"))
    return {unquote_plus(name): unquote_plus(value) for name, _, value in fields if value}


def settings_of(url: str) -> list[str]:
    """Return the names of the parameters that are sent to PostgreSQL as settings of the session."""
    return [name for name in parameters_of(url) if name not in _DRIVER]


def files_of(url: str) -> Iterator[tuple[str, Path]]:
    """Yield the parameters for TLS files with their paths, or none if the URL disables TLS."""
    parameters = parameters_of(url)
    if parameters.get("sslmode") != "disable":
        yield from ((name, Path(parameters[name])) for name in FILES if name in parameters)
