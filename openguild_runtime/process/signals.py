"""Signal handlers for the time before the event loop receives signals, and after."""

from __future__ import annotations

import signal
from typing import NoReturn

SIGTERM_STATUS = 128 + signal.SIGTERM  # the status a shell reports for a command that SIGTERM ended
SIGINT_STATUS = 128 + signal.SIGINT


def ignore(*numbers: signal.Signals) -> None:
    """Ignore these signals. Sets a handler and not SIG_IGN, which child processes would inherit."""
    for number in numbers:
        signal.signal(number, lambda number, frame: None)


def ignore_user_signals() -> None:
    """Ignore SIGUSR1 and SIGUSR2: programs that rotate logs send them, and the default would end the process undrained."""
    ignore(signal.SIGUSR1, signal.SIGUSR2)


_SIGHUP_AT_START = signal.getsignal(signal.SIGHUP)  # ignored under nohup
_held: set[signal.Signals] = set()  # that came before the loop received them, and nobody has taken


def hold_sighup() -> None:
    """Keep SIGHUP until the server can reload its configuration; the default would end the process."""
    signal.signal(signal.SIGHUP, lambda number, frame: _held.add(signal.SIGHUP))


def take_held(number: signal.Signals) -> bool:
    """Return whether a SIGHUP came while it was held, or a SIGTERM whose exit some code caught; the answer is given once."""
    came = number in _held
    _held.discard(number)
    return came


def restore_sighup() -> None:
    """Handle SIGHUP as when the process began: a command that does not serve ends with its terminal."""
    signal.signal(signal.SIGHUP, _SIGHUP_AT_START)


def exit_on_sigterm(status: int) -> None:
    """Exit with `status` at SIGTERM until the event loop receives signals: there is nothing to drain yet.

    The default handler does not end PID 1 of a container. The exit is an exception: where it comes upon code that catches it,
    such as a finalizer, the loop takes the signal as held.
    """

    def leave(number: int, frame: object) -> NoReturn:
        _held.add(signal.SIGTERM)
        raise SystemExit(status)

    signal.signal(signal.SIGTERM, leave)
    # the parent process may have blocked them, and the mask is inherited
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
