"""Run a benchmark as a program: signals, exit statuses, and messages in place of tracebacks."""

from __future__ import annotations

import argparse
import io
import signal
import sys
from collections.abc import Callable
from typing import NoReturn


class RefusedError(Exception):
    """The benchmark cannot run as requested. The message is one line with the reason."""


class FailedError(RuntimeError):
    """The results of a run are not valid. The message is one line with the reason."""


def program(main: Callable[[], int | None]) -> NoReturn:
    """Run `main` and exit with its status.

    SIGTERM and SIGALRM end it as Ctrl-C does: its servers are stopped and its directories are deleted.
    """
    for number in (signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, _end)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # the locale may lack a character of a table
    try:
        status = main()
    except RefusedError as refused:
        sys.stderr.write(f"{refused}\n")
        status = 2
    except FailedError as failed:
        sys.stderr.write(f"\n{failed}\n")
        status = 1
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped\n")
        status = 128 + signal.SIGINT
    except Exception as failure:
        from openguild_runtime.embedded import EmbeddedError  # here, so that --help works without the extra

        if not isinstance(failure, EmbeddedError):
            raise
        sys.stderr.write(f"{failure}\n")
        if "--data-dir" in str(failure):  # an option of the server, not of the benchmark
            sys.stderr.write("The directories of a benchmark are in TMPDIR.\n")
        status = 1
    raise SystemExit(status)


def _end(number: int, _: object) -> NoReturn:
    sys.stderr.write(f"\nstopped by {signal.Signals(number).name}\n")
    raise SystemExit(128 + number)


def positive(text: str) -> int:
    """Parse an option whose value is an integer of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: at least 1")
    return number
