"""What a signal does while nothing listens for it."""

from __future__ import annotations

import signal
from typing import NoReturn

SIGTERM_STATUS = 128 + signal.SIGTERM  # what a shell says of a command that SIGTERM ended


def ignore(*numbers: signal.Signals) -> None:
    """From here on they do nothing. A handler, not SIG_IGN: programs that are started get the default again."""
    for number in numbers:
        signal.signal(number, lambda number, frame: None)


def ignore_sighup() -> None:
    """SIGHUP means "read the configuration again". Until something listens for it, it must not end the process."""
    ignore(signal.SIGHUP)


def exit_on_sigterm(status: int) -> None:
    """Until something listens for it, it ends the process with `status`: nothing is served yet, so there is nothing to drain.

    The default does not end the first process of a container.
    """

    def leave(number: int, frame: object) -> NoReturn:
        raise SystemExit(status)

    signal.signal(signal.SIGTERM, leave)
    # whoever started this process may have had them blocked, which is inherited
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
