"""The TLS context of a database URL, as the driver would make it, but in a thread and once for unchanged files.

The driver makes one for each session, in the loop: with a bundle of public authorities nobody is served for 0.1 to 0.2 s.
"""

from __future__ import annotations

import os
import ssl
import threading
from functools import lru_cache
from pathlib import Path

import anyio.to_thread

from openguild_runtime.config.database_parameters import FILES, VERIFYING, parameters_of

MAX_CONTEXTS = 32  # ours: of the hosts and standbys of one process, which mostly share one
TRUSTING = VERIFYING | {"require"}  # which checks too if there are authorities, as in libpq
DEFAULT_FILES = {"sslcrl": "root.crl", "sslcert": "postgresql.crt", "sslkey": "postgresql.key"}  # of libpq
NAMES = ("sslmode", *FILES, "sslpassword", "ssl_min_protocol_version", "ssl_max_protocol_version")

_making = threading.Lock()  # those that wait find it made


async def tls_context(url: str) -> ssl.SSLContext | None:
    """Return the context; None: no authorities are named, so the driver decides. Raises OSError, also for bad files."""
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
    """Return what changes when a file does. Raises OSError."""
    if path is None:
        return None
    status = os.stat(path)
    return status.st_ino, status.st_size, status.st_mtime_ns


@lru_cache(maxsize=MAX_CONTEXTS)
def _context(values: tuple[str | None, ...], stamps: tuple[object, ...]) -> ssl.SSLContext:
    """`values`: of NAMES, in order. `stamps`: of their files, so that a changed one is read."""
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
