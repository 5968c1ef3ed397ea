"""Signal handlers for the time before the event loop receives signals, and afterwards."""

from __future__ import annotations

import signal
from typing import NoReturn

SIGTERM_STATUS = 128 + signal.SIGTERM  # the status a shell reports for a command that SIGTERM ended
SIGINT_STATUS = 128 + signal.SIGINT


def ignore(*numbers: signal.Signals) -> None:
    """Ignore these signals, with a handler instead of SIG_IGN, which child processes would inherit."""
    for number in numbers:
        signal.signal(number, lambda number, frame: None)


def ignore_user_signals() -> None:
    """Ignore SIGUSR1 and SIGUSR2. Log rotation sends them, and by default they end the process."""
    ignore(signal.SIGUSR1, signal.SIGUSR2)


_SIGHUP_AT_START = signal.getsignal(signal.SIGHUP)  # ignored under nohup
_held: set[signal.Signals] = set()  # received before the loop receives signals, and not taken yet


def hold_sighup() -> None:
    """Hold SIGHUP until the server can reload its configuration. By default it ends the process."""
    signal.signal(signal.SIGHUP, lambda number, frame: _held.add(signal.SIGHUP))


def take_held(number: signal.Signals) -> bool:
    """Return whether the signal is held: a SIGHUP, or a SIGTERM whose SystemExit was caught. It is not held afterwards."""
    came = number in _held
    _held.discard(number)
    return came


def restore_sighup() -> None:
    """Restore the initial SIGHUP handler, so that a command that does not serve ends with its terminal."""
    signal.signal(signal.SIGHUP, _SIGHUP_AT_START)


def exit_on_sigterm(status: int) -> None:
    """Exit with `status` at SIGTERM, until the event loop receives signals. Nothing has to be drained before.

    The default handler does not end PID 1 of a container. If the SystemExit is caught, for example in a finalizer, the signal is
    held for the loop.
    """

    def leave(number: int, frame: object) -> NoReturn:
        _held.add(signal.SIGTERM)
        raise SystemExit(status)

    signal.signal(signal.SIGTERM, leave)
    # a mask of the parent process is inherited
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
