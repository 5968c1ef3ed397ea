"""Writes the log to a descriptor on a thread, so that a slow reader never blocks the server.

The queue is bounded. Lines beyond the bound are dropped and counted, and a line in their place says how many are missing.

`append` takes no lock, because a finalizer may log at any point on any thread. `SimpleQueue.put` is reentrant.
"""

from __future__ import annotations

import errno
import os
import select
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue

MAX_WAITING_BYTES = 4 * 1024 * 1024
OVERHEAD_BYTES = 64  # of a queued line, in addition to its text
MAX_WRITES = 64  # between two looks at the queue's end
PAUSE_SECS = 0.005  # when all is written, so that several lines leave together: the thread competes with the loop
POLL_SECS = 1.0  # between two checks of a descriptor that another process made non-blocking


class LogWriter:
    """Writes lines to `descriptor`. `describe_gap(count, problem)` returns the line that replaces `count` dropped ones, or "".

    `problem` is what the system said when the lines could not be written, or "": there were too many for the reader.
    """

    def __init__(self, descriptor: int, describe_gap: Callable[[int, str], str]) -> None:
        self._descriptor = descriptor
        self._describe_gap = describe_gap
        self._lines: SimpleQueue[str | int] = SimpleQueue()  # an int marks a gap: the value of `_refused` there
        self._accepted = 0  # bytes taken by `append`
        self._written = 0  # bytes of them that the thread has written or lost
        self._refused = 0  # lines that did not fit into the queue
        self._marked = 0  # of these, lines before the newest mark in the queue
        self._reported = 0  # of these, lines reported in the log
        self._lost = 0  # lines that could not be written to the descriptor
        self._lost_reported = 0
        self._problem = ""  # why the newest of them were lost
        self._torn = False  # the file may end within a line, of this process or of another one that writes to it
        threading.Thread(target=self._run, name="log writer", daemon=True).start()

    @property
    def dropped(self) -> int:
        """The number of lines that were not written."""
        return self._refused + self._lost

    def append(self, line: str) -> None:
        """Queue the line; never blocks."""
        size = len(line) + OVERHEAD_BYTES
        if self._accepted - self._written + size > MAX_WAITING_BYTES:
            self._refused += 1
            return
        if self._refused != self._marked:
            self._marked = self._refused
            self._lines.put(self._marked)
        self._accepted += size
        self._lines.put(line)

    def flush(self, secs: float) -> bool:
        """Wait for at most `secs` until all appended lines are written. Return whether they are."""
        goal, end = self._accepted, time.monotonic() + secs
        while self._written < goal:
            if time.monotonic() >= end:
                return False
            time.sleep(PAUSE_SECS / 2)
        return True

    # --- on the thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            for item in self._take():
                if isinstance(item, int):
                    self._report_missing(item)
                else:
                    self._write_lines(item)
            if self._lines.empty():
                self._report_missing(self._refused)
                time.sleep(PAUSE_SECS)

    def _take(self) -> list[list[str] | int]:
        """Wait for something to write, and take all there is: marks of gaps, and lists of lines that are written together.

        Such a list has at most PIPE_BUF bytes: a pipe takes that atomically, so lines of several processes do not mix.
        """
        taken: list[list[str] | int] = []
        lines: list[str] = []
        room = 0
        item, take = self._lines.get(), self._lines.get_nowait
        with suppress(Empty):
            while True:
                if isinstance(item, int):
                    taken.append(item)
                    room = 0
                else:
                    if len(item) > room:
                        lines, room = [], select.PIPE_BUF
                        taken.append(lines)
                    lines.append(item)
                    room -= len(item)
                if len(taken) == MAX_WRITES:
                    break
                item = take()
        return taken

    def _write_lines(self, lines: list[str]) -> None:
        text = "".join(lines)
        if self._lost != self._lost_reported:
            self._report_missing(self._reported)
        try:
            self._write(text.encode(errors="backslashreplace"))
        except Exception as failure:  # the reader is gone or the disk is full: count and go on
            self._lost += len(lines)
            self._problem = (failure.strerror if isinstance(failure, OSError) else None) or type(failure).__name__
        self._written += len(text) + OVERHEAD_BYTES * len(lines)

    def _report_missing(self, refused: int) -> None:
        """Write how many lines were refused or lost and are not yet reported."""
        lost, refused = self._lost, max(refused, self._reported)
        missing = refused - self._reported + lost - self._lost_reported
        if missing > 0:
            with suppress(Exception):  # else it is reported after the next successful write
                self._write(self._describe_gap(missing, self._problem if lost != self._lost_reported else "").encode())
                self._reported, self._lost_reported = refused, lost

    def _write(self, data: bytes) -> None:
        """Write all bytes, on a line of their own. Raises OSError."""
        if self._torn and data:
            data = b"\n" + data
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
                self._torn = False
            except BlockingIOError:  # another process that shares the descriptor made it non-blocking
                select.select((), (self._descriptor,), (), POLL_SECS)
            except OSError as failure:
                self._torn = failure.errno != errno.EPIPE  # a pipe takes lines whole
                raise
