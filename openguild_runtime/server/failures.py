"""Turns the failure of a command into one line for the operator."""

from __future__ import annotations

import ssl
from collections.abc import Callable

import asyncpg

from openguild_proto.effects import StorageUnavailable
from openguild_runtime.config.layers import ConfigError
from openguild_runtime.embedded import EmbeddedError
from openguild_runtime.observability import logs
from openguild_runtime.observability.database_causes import CAUSES, REFUSALS
from openguild_runtime.process.signals import SIGINT_STATUS
from openguild_runtime.storage.connecting import DatabaseUnusable
from openguild_runtime.storage.fitness import DatabaseUnfit
from openguild_runtime.storage.postgres.faults import cause_of, tls_reason

LOGGED = frozenset({None, "migrate"})  # commands that run without a terminal: serve (None) and migrations


class CommandFailed(Exception):
    """A command failed; the message is one line for the operator and never holds a secret."""


class WrongUsage(CommandFailed):
    """The command was called with wrong arguments."""


def answer_failures(run: Callable[[], int], command: str | None, log_format: Callable[[], str | None]) -> int:
    """Return the exit status of `run()`; if it fails, print one line and return 1, or 2 for wrong usage.

    An interrupt returns the status of SIGINT. A defect of the program is raised, for its traceback. The line of a command
    in LOGGED is a JSON record if `log_format()` is json.
    """
    try:
        return run()
    except KeyboardInterrupt:
        return SIGINT_STATUS
    except BaseExceptionGroup as group:
        failure = _first(group.subgroup(EmbeddedError) or group)  # the cause, where others followed
        line = _one_line(failure, command)
        if line is None:
            raise
    except Exception as single:
        failure = single
        line = _one_line(failure, command)
        if line is None:
            raise
    as_record = command in LOGGED and log_format() == "json"
    logs.write_line(logs.start_failure_line(line) if as_record else f"openguild-server: {line}\n")
    return 2 if isinstance(failure, WrongUsage) else 1


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first error inside a group, at any depth."""
    failure: BaseException = group
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    return failure


def _one_line(failure: BaseException, command: str | None) -> str | None:
    """Return the operator's line, without addresses or credentials, or None for a defect of the program."""
    match failure:
        case ConfigError() | CommandFailed() | EmbeddedError() | DatabaseUnfit():
            return str(failure)
        case StorageUnavailable():
            return f"the database cannot be used: {failure}" if str(failure) else "the database cannot be used now"
        case DatabaseUnusable():
            return f"{command or 'serve'}: the database cannot be used: {_told(failure)}"
        case OSError() | asyncpg.PostgresError() | asyncpg.InterfaceError() if command == "migrate" and (
            unreached := _unreached(failure)
        ):
            return f"migrate: the database cannot be used: {unreached}"
        case OSError():
            about = f"{failure.filename}: " if isinstance(failure.filename, str) else ""
            return f"{command or 'serve'}: {about}{failure.strerror or type(failure).__name__}"
        case asyncpg.PostgresError() | asyncpg.InterfaceError():
            return f"{command or 'serve'}: {logs.redact(str(failure).splitlines()[0])}"
        case _:
            original = getattr(failure, "orig", None)  # of SQLAlchemy's wrapper
            return _one_line(original, command) if isinstance(original, Exception) else None


def _told(failure: DatabaseUnusable) -> str:
    return _explained(failure.cause, failure.parameter)


def _explained(name: str, detail: str | None) -> str:
    cause = CAUSES[name]
    return f"{cause.meaning}: {cause.mend}" if detail is None else f"{cause.meaning} ({detail}): {cause.mend}"


def _unreached(failure: BaseException) -> str | None:
    """Return why the database cannot be reached, or None if it answered or the failure is not about the database."""
    if isinstance(failure, OSError) and failure.filename is not None:
        return None
    cause = cause_of(failure)
    if cause is None or cause in REFUSALS:
        return None
    reason = tls_reason(failure) if isinstance(failure, ssl.SSLError) else None
    return _explained(cause, reason)
