"""Descriptors 0, 1 and 2 of this process, and what others write to standard error: Python itself, warnings, libraries."""

from __future__ import annotations

import atexit
import io
import logging
import os
import sys
import threading
import traceback
from types import TracebackType

import structlog

from openguild_runtime.observability import logs

STDERR = "openguild.stderr"  # the target of what is no record of anybody's

log = structlog.get_logger("openguild.python")


def open_missing_descriptors() -> None:
    """Call first of all. What was closed when the process began becomes /dev/null: else the next socket would get its number."""
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            if os.open(os.devnull, os.O_RDWR) != number:
                raise
            os.set_inheritable(number, True)
            stream = open(number, mode, closefd=False)  # noqa: SIM115 - for as long as the process lives
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)


def redirect_stderr_to_log() -> None:
    """From here on whatever is written to `sys.stderr`, and every traceback that nobody catches, goes the way of the log.

    A server must not wait for whoever reads it; nor may its log hold lines that are no records, where records are asked for.
    """
    if sys.stderr is not sys.__stderr__:
        return  # somebody has put their own in its place, and wants to have what is printed
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    threading.excepthook = lambda args: _uncaught(args.exc_type, args.exc_value, args.exc_traceback)
    sys.unraisablehook = lambda args: _log_exception(args.err_msg or "an exception was ignored", args.exc_value)
    sys.stderr = _StderrToLog()
    atexit.register(_at_exit)


class _StderrToLog(io.TextIOBase):
    """Lines for the log, made of the pieces in which they are printed."""

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
    """Everything that was logged is written, as far as its reader takes it; Python's own last words then come as they are."""
    if logs.flush() and sys.__stderr__ is not None:
        sys.stderr = sys.__stderr__
