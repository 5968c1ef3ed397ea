"""Writes the log to a descriptor on a thread, so that a slow reader never blocks the server.

The queue is bounded. Lines beyond the bound are dropped and counted, and replaced by a line with their number.

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
OVERHEAD_BYTES = 64  # counted for a queued line, in addition to its text
MAX_WRITES = 64  # writes between two reads of the queue
PAUSE_SECS = 0.005  # after the last line, to write several lines at once: the thread competes with the loop
POLL_SECS = 1.0  # between two checks of a descriptor that another process made non-blocking


class LogWriter:
    """Writes lines to `descriptor`. `describe_gap(count, problem)` returns the line that replaces `count` dropped ones, or "".

    `problem` is the system's error if lines could not be written, or "" if the reader was too slow.
    """

    def __init__(self, descriptor: int, describe_gap: Callable[[int, str], str]) -> None:
        self._descriptor = descriptor
        self._describe_gap = describe_gap
        self._lines: SimpleQueue[str | int] = SimpleQueue()  # an int marks a gap: the value of `_refused` there
        self._accepted = 0  # bytes accepted by `append`
        self._written = 0  # of these, bytes that the thread has written or lost
        self._refused = 0  # lines that did not fit into the queue
        self._marked = 0  # of these, lines before the newest mark in the queue
        self._reported = 0  # of these, lines reported in the log
        self._lost = 0  # lines that could not be written to the descriptor
        self._lost_reported = 0
        self._problem = ""  # why the latest of them were lost
        self._torn = False  # the file may end with a partial line, of this or another process
        threading.Thread(target=self._run, name="log writer", daemon=True).start()

    @property
    def dropped(self) -> int:
        """The number of lines that were not written."""
        return self._refused + self._lost

    def append(self, line: str) -> None:
        """Queue the line, or drop it if the queue is full. Never blocks."""
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
        """Wait at most `secs` until all queued lines are written, and return whether they are."""
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
        """Wait for queued items, and return all of them: marks of gaps, and lists of lines to be written together.

        A list has at most PIPE_BUF bytes, which a pipe takes atomically, so that lines of several processes do not mix.
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
        """Write the number of refused and lost lines that are not reported yet."""
        lost, refused = self._lost, max(refused, self._reported)
        missing = refused - self._reported + lost - self._lost_reported
        if missing > 0:
            with suppress(Exception):  # reported after the next successful write
                self._write(self._describe_gap(missing, self._problem if lost != self._lost_reported else "").encode())
                self._reported, self._lost_reported = refused, lost

    def _write(self, data: bytes) -> None:
        """Write all bytes, starting on a new line. Raises OSError."""
        if self._torn and data:
            data = b"\n" + data
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
                self._torn = False
            except BlockingIOError:  # made non-blocking by another process that shares it
                select.select((), (self._descriptor,), (), POLL_SECS)
            except OSError as failure:
                self._torn = failure.errno != errno.EPIPE  # a pipe writes whole lines
                raise
