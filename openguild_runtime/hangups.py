"""SIGHUP means "read the configuration again". Until something listens for it, it must not end the process."""

from __future__ import annotations

import signal


def ignore_hangups() -> None:
    """From here on SIGHUP does nothing. A handler, not SIG_IGN: programs that are started get the default again."""
    signal.signal(signal.SIGHUP, lambda number, frame: None)
