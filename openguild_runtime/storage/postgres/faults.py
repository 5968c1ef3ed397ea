"""Maps exceptions of the driver to causes (observability/database_causes.py), and logs them."""

from __future__ import annotations

import errno
import re
import socket
import ssl
import time
from collections.abc import Callable, Collection

import asyncpg
import structlog

from openguild_proto.diagnosis.certificates import distrust_reason
from openguild_proto.effects import Overloaded, StorageUnavailable
from openguild_proto.policy.log_throttle import LogThrottle
from openguild_runtime.observability.database_causes import CAUSES
from openguild_runtime.storage.connecting import DatabaseUnusable

REPEAT_SECS = 30.0  # between two log lines of one cause
ERRNO = re.compile(r"\[Errno (\d+)\]")  # in an OSError that combines those of several addresses

# Failures of one event, or bugs: data, constraints, limits of a row, exceptions of triggers.
NOT_THE_DATABASE = ("21", "22", "23", "44", "54", "P0")

# Appendix A of PostgreSQL's manual: exact codes first, then classes.
BY_SQLSTATE = {
    "25006": "read_only",
    "28P01": "password",
    "3D000": "no_database",
    "42501": "rights",
    "53100": "disk_full",
    "53200": "memory",
    "53300": "too_many_connections",
    "55000": "role",  # the database accepts no connections
    "55P03": "locked",
    "57014": "slow",
    "57P01": "shutdown",
    "57P03": "starting",
    "08P01": "pooler",
}
BY_CLASS = {
    "08": "lost",
    "0A": "schema",  # a cached plan whose table has changed
    "25": "slow",  # the transaction timed out, because this process or the network stalled
    "28": "role",
    "3D": "no_database",
    "3F": "schema",
    "40": "conflict",
    "42": "schema",
    "53": "limit",
    "57": "lost",
    "58": "damaged",
    "XX": "damaged",
}
BY_ERRNO = {
    errno.ECONNREFUSED: "refused",
    errno.ENOENT: "refused",  # no such Unix socket
    errno.EHOSTUNREACH: "unreachable",
    errno.ENETUNREACH: "unreachable",
    errno.ETIMEDOUT: "timeout",
    errno.EMFILE: "descriptors",
    errno.ENFILE: "descriptors",
}

log = structlog.get_logger("openguild.storage")


class Locked(Overloaded):
    """A lock timed out and nothing was done. `users` are the authors of a batch of appends known to be locked."""

    def __init__(self, users: Collection[str] = ()) -> None:
        super().__init__()
        self.users = users


def cause_of(failure: BaseException) -> str | None:
    """Return the name of the cause, or None for a failure of the effect itself or a bug."""
    match failure:
        case DatabaseUnusable(cause=cause):
            return cause
        case TimeoutError():
            return "timeout"
        case socket.gaierror():
            return "dns"
        case ssl.SSLError():
            return "tls"
        case ConnectionError() if "SSL" in str(failure):  # asyncpg, if the server does not support TLS
            return "tls"
        case OSError():
            return BY_ERRNO.get(_errno(failure), "lost")
        case asyncpg.TargetServerAttributeNotMatched():
            return "read_only"
        case asyncpg.PostgresError():
            return _by_state(failure.sqlstate)
        case asyncpg.ClientConfigurationError():
            return "url"
        case asyncpg.InterfaceError() | asyncpg.InternalClientError():
            return "lost"
    return None


def details_of(failure: BaseException | None) -> dict[str, str]:
    """Return further fields for the log: the refused parameter of the URL, and the message of PostgreSQL or TLS."""
    parameter = failure.parameter if isinstance(failure, DatabaseUnusable) else None
    details = {"says": _said(failure), "parameter": parameter}
    return {name: value for name, value in details.items() if value is not None}


def is_answer(failure: BaseException) -> bool:
    """Return whether the failure is a response of PostgreSQL."""
    return isinstance(failure.__cause__ if isinstance(failure, DatabaseUnusable) else failure, asyncpg.PostgresError)


def _by_state(state: str | None) -> str | None:
    state = state or ""
    if state.startswith(NOT_THE_DATABASE):
        return None
    return BY_SQLSTATE.get(state) or BY_CLASS.get(state[:2], "other")


def _errno(failure: OSError) -> int:
    if failure.errno is not None:
        return failure.errno
    found = ERRNO.search(str(failure))
    return int(found[1]) if found is not None else 0


def tls_reason(failure: ssl.SSLError) -> str | None:
    """Return why TLS fails, without a name or an address."""
    if isinstance(failure, ssl.SSLCertVerificationError):
        reason = distrust_reason(failure.verify_code)
        return f"the certificate is not trusted: {reason}" if reason is not None else failure.reason
    return failure.reason


def _said(failure: BaseException | None) -> str | None:
    """Return PostgreSQL's message if it names only tables, columns or functions and no data; that of a pooler, or of TLS."""
    if isinstance(failure, ssl.SSLError):
        return tls_reason(failure)
    if isinstance(
        failure,
        asyncpg.UndefinedObjectError
        | asyncpg.InsufficientPrivilegeError
        | asyncpg.UndefinedTableError
        | asyncpg.UndefinedColumnError
        | asyncpg.UndefinedFunctionError
        | asyncpg.ProtocolViolationError,  # PgBouncer's only error, also for a wrong password
    ):
        return str(failure).partition("\n")[0]
    return None


class FaultLog:
    """Logs failures, each cause once in `REPEAT_SECS` with the number of suppressed lines. Calls `on_fault(writes, cause)`."""

    def __init__(
        self,
        on_fault: Callable[[bool, str], None],
        clock: Callable[[], float] = time.monotonic,
        *,
        title: str = "the database",
    ) -> None:
        self._on_fault = on_fault
        self._title = title
        self._clock = clock
        self._lines = LogThrottle(REPEAT_SECS)

    def note(self, cause: str, failure: BaseException | None, *, writes: bool) -> StorageUnavailable:
        """Log the failure and return the exception to raise instead, without the text, which may quote data and addresses."""
        self._on_fault(writes, cause)
        details = details_of(failure)
        suppressed = self._lines.due(f"{cause} {details.get('says')}", self._clock())
        if suppressed is not None:
            if isinstance(failure, DatabaseUnusable):
                failure = failure.__cause__ or failure
            log.warning(
                f"{self._title} failed: {CAUSES[cause]}",
                cause=cause,
                sqlstate=getattr(failure, "sqlstate", None),
                kind=type(failure).__name__ if failure is not None else None,
                **details,
                operation="write" if writes else "read",
                suppressed=suppressed,
            )
        if cause == "locked":
            return Locked()
        return Overloaded() if cause == "conflict" else StorageUnavailable(str(CAUSES[cause]))
