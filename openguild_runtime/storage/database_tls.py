"""The TLS context of a database URL, as the driver would make it, but in a thread and cached while the files are unchanged.

The driver makes one for each session and blocks the loop for it, with a bundle of public authorities for 0.1 to 0.2 s.
"""

from __future__ import annotations

import os
import ssl
import threading
from functools import lru_cache
from pathlib import Path

import anyio.to_thread

from openguild_runtime.config.database_parameters import FILES, VERIFYING, parameters_of

MAX_CONTEXTS = 32  # of the primary and the standbys of one process, which usually share one
TRUSTING = VERIFYING | {"require"}  # as in libpq, "require" verifies if authorities are given
DEFAULT_FILES = {"sslcrl": "root.crl", "sslcert": "postgresql.crt", "sslkey": "postgresql.key"}  # of libpq
NAMES = ("sslmode", *FILES, "sslpassword", "ssl_min_protocol_version", "ssl_max_protocol_version")

_making = threading.Lock()  # threads that wait find the context in the cache


async def tls_context(url: str) -> ssl.SSLContext | None:
    """Return the context, or None if no authorities are given and the driver decides. Raises OSError, also for invalid files."""
    if "sslmode=" not in url and not os.environ.get("PGSSLMODE"):
        return None
    return await anyio.to_thread.run_sync(_context_of, url)


def _context_of(url: str) -> ssl.SSLContext | None:
    given = parameters_of(url)
    values = {name: given.get(name) or os.environ.get(f"PG{name.replace('_', '').upper()}") for name in NAMES}
    if values["sslmode"] not in TRUSTING or values["sslrootcert"] is None:
        return None
    for name, default in DEFAULT_FILES.items():
        values[name] = values[name] or _default_file(default)
    stamps = tuple(_stamp(values[name]) for name in FILES)
    with _making:
        return _context(tuple(values.values()), stamps)


def _default_file(name: str) -> str | None:
    try:
        path = Path.home() / ".postgresql" / name
    except RuntimeError:  # no home
        return None
    return str(path) if path.exists() else None


def _stamp(path: str | None) -> tuple[int, int, int] | None:
    """Return a value that changes when the file does. Raises OSError."""
    if path is None:
        return None
    status = os.stat(path)
    return status.st_ino, status.st_size, status.st_mtime_ns


@lru_cache(maxsize=MAX_CONTEXTS)
def _context(values: tuple[str | None, ...], stamps: tuple[object, ...]) -> ssl.SSLContext:
    """Return the context for the values of NAMES. `stamps` of their files are part of the key, so that changed files are read."""
    del stamps
    mode, authorities, certificate, key, revoked, password, lowest, highest = values
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = mode == "verify-full"
    context.load_verify_locations(cafile=authorities)
    if revoked is not None:
        context.load_verify_locations(cafile=revoked)
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN
    if certificate is not None:
        context.load_cert_chain(certificate, key, lambda: password or "")
    context.minimum_version = _version(lowest or "TLSv1.2")
    if highest is not None:
        context.maximum_version = _version(highest)
    context.set_alpn_protocols(["postgresql"])
    return context


def _version(name: str) -> ssl.TLSVersion:
    return ssl.TLSVersion[name.replace(".", "_")]
