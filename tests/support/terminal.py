"""A program in a pseudo terminal: its screen, and keys to press."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from tests.support.waiting import PATIENCE_SECS

# the terminal controls its own session, so that Ctrl-C becomes a signal
WITH_TERMINAL = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""


class Terminal:
    """`screen`: all output, with its control sequences. The program ends with the terminal."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        directory: Path,
        environment: Mapping[str, str],
        width: int = 100,
        height: int = 30,
    ) -> None:
        self.screen = ""
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
        self.before = termios.tcgetattr(theirs)
        self._theirs = theirs  # kept open, so that its settings can be read after the end
        self.process = subprocess.Popen(
            [sys.executable, "-c", WITH_TERMINAL, *command], cwd=directory, env=dict(environment) | {"TERM": "xterm"},
            stdin=theirs, stdout=theirs, stderr=theirs,
        )  # fmt: skip

    def read_until(self, text: str, secs: float = PATIENCE_SECS) -> str:
        """Read until the new output contains `text`; return that output."""
        begin, deadline = len(self.screen), time.monotonic() + secs
        while text not in self.screen[begin:]:
            left = deadline - time.monotonic()
            assert left > 0, f"{text!r} did not come; the screen: {self.screen[-2_000:]!r}"
            if select.select([self._ours], [], [], min(left, 0.2))[0]:
                self.screen += os.read(self._ours, 65_536).decode(errors="replace")
            else:
                assert self.process.poll() is None, f"it ended; the screen: {self.screen[-2_000:]!r}"
        return self.screen[begin:]

    def press(self, keys: str) -> None:
        """Type keys."""
        os.write(self._ours, keys.encode())

    def wait(self, secs: float = PATIENCE_SECS) -> int:
        """Read the remaining output and return the exit status."""
        deadline = time.monotonic() + secs
        while True:
            while select.select([self._ours], [], [], 0.02)[0]:
                self.screen += os.read(self._ours, 65_536).decode(errors="replace")
            status = self.process.poll()
            if status is not None:
                return status
            assert time.monotonic() < deadline, f"it did not end; the screen: {self.screen[-2_000:]!r}"

    @property
    def is_as_before(self) -> bool:
        """Return whether the terminal's settings are those from before the program."""
        return termios.tcgetattr(self._theirs) == self.before

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._theirs)
        os.close(self._ours)
