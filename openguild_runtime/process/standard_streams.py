"""Redirects text that Python, warnings and libraries print to standard error."""

from __future__ import annotations

import atexit
import io
import logging
import sys
import threading
import traceback
from types import TracebackType

import structlog

from openguild_runtime.observability import logs

STDERR = "openguild.stderr"  # the log target of printed text

log = structlog.get_logger("openguild.python")


def redirect_stderr_to_log() -> None:
    """Send text written to `sys.stderr`, and uncaught exceptions, to the log.

    A slow reader of stderr must not block the server, and a JSON log must have JSON records only.
    """
    if sys.stderr is not sys.__stderr__:
        return  # already replaced, for example by a test that captures it
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    threading.excepthook = lambda args: _uncaught(args.exc_type, args.exc_value, args.exc_traceback)
    sys.unraisablehook = lambda args: _log_exception(args.err_msg or "an exception was ignored", args.exc_value)
    sys.stderr = _StderrToLog()
    atexit.register(_at_exit)


class _StderrToLog(io.TextIOBase):
    """Collects printed text into lines for the log."""

    def __init__(self) -> None:
        self._begun = ""

    def write(self, text: str, /) -> int:
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            logs.log_printed_line(line, STDERR)
        return len(text)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return 2


def _uncaught(
    kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None = None, /
) -> None:
    del kind, trace
    _log_exception("an exception was not caught", failure)


def _log_exception(message: str, failure: BaseException | None) -> None:
    text = "" if failure is None else "".join(traceback.format_exception(failure)).rstrip("\n")
    log.error(message, exception=text)


def _at_exit() -> None:
    """Write the queued log lines, then let Python print its last messages to the real stderr."""
    if logs.flush() and sys.__stderr__ is not None:
        sys.stderr = sys.__stderr__
