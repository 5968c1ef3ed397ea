"""How a benchmark runs as a program: what ends it, and what it says instead of a traceback."""

from __future__ import annotations

import argparse
import io
import signal
import sys
from collections.abc import Callable
from typing import NoReturn


class RefusedError(Exception):
    """What is asked for cannot be run; the message says why, in a line."""


class FailedError(RuntimeError):
    """A run whose figures do not count; the message says why, in a line."""


def program(main: Callable[[], int | None]) -> NoReturn:
    """Run `main` and exit with its status. SIGTERM and an alarm end it as Ctrl-C does: servers stop, directories go."""
    for number in (signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, _end)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a locale without a sign of a table is no reason to lose its figures
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
        from openguild_runtime.embedded import EmbeddedError  # here, as --help needs no extra

        if not isinstance(failure, EmbeddedError):
            raise
        sys.stderr.write(f"{failure}\n")
        if "--data-dir" in str(failure):  # which is the server's
            sys.stderr.write("The directories of a benchmark are in TMPDIR.\n")
        status = 1
    raise SystemExit(status)


def _end(number: int, _: object) -> NoReturn:
    sys.stderr.write(f"\nstopped by {signal.Signals(number).name}\n")
    raise SystemExit(128 + number)


def positive(text: str) -> int:
    """Return the number of an option that counts something."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: at least 1")
    return number
