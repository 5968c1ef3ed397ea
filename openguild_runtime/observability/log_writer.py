"""Writes the log to a descriptor on a thread of its own: whoever logs never waits for whoever reads.

What waits to be written is bounded. Beyond that lines are dropped and counted, and the log says how many as soon as there is
room again, at the place where they are missing.

`append` takes no lock: a finalizer may log at any point, on any thread. `SimpleQueue.put` may be interrupted by itself.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue

MAX_WAITING_BYTES = 4 * 1024 * 1024
OVERHEAD_BYTES = 64  # of a waiting line, beside its text
PAUSE_SECS = 0.002  # after a write: what is logged meanwhile leaves together, without waking the thread for each line
POLL_SECS = 1.0  # between two looks at a descriptor that somebody else made non-blocking


class LogWriter:
    """Lines to `descriptor`. `describe_gap(count)` gives the line that stands for `count` dropped ones; it may be empty."""

    def __init__(self, descriptor: int, describe_gap: Callable[[int], str]) -> None:
        self._descriptor = descriptor
        self._describe_gap = describe_gap
        self._lines: SimpleQueue[str | int] = SimpleQueue()  # a number: lines refused so far, where some are missing
        self._next_item: str | int | None = None  # taken from the queue, for the next write
        self._accepted = 0  # bytes, by `append`
        self._written = 0  # of them, by the thread: written or lost
        self._refused = 0  # lines that found no room
        self._marked = 0  # of them, before the newest mark in the queue
        self._reported = 0  # of them, said in the log
        self._lost = 0  # lines that the descriptor refused
        self._lost_reported = 0
        threading.Thread(target=self._run, name="log writer", daemon=True).start()

    @property
    def dropped(self) -> int:
        """Lines that were not written."""
        return self._refused + self._lost

    def append(self, line: str) -> None:
        """Have it written; never waits."""
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
        """Wait until what was appended so far is written, for `secs` at most; whether it is."""
        goal, end = self._accepted, time.monotonic() + secs
        while self._written < goal:
            if time.monotonic() >= end:
                return False
            time.sleep(PAUSE_SECS / 2)
        return True

    # --- on the thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            lines = self._take()
            if self._lost != self._lost_reported:
                self._report_missing(self._reported)
            try:
                self._write("".join(lines).encode(errors="backslashreplace"))
            except Exception:  # the reader has gone, the disk is full: the server goes on, and counts
                self._lost += len(lines)
            self._written += sum(map(len, lines)) + OVERHEAD_BYTES * len(lines)
            if self._next_item is None and self._lines.empty():
                self._report_missing(self._refused)
                time.sleep(PAUSE_SECS)

    def _take(self) -> list[str]:
        """What waits, as much as a pipe takes in one piece (PIPE_BUF): the lines of several processes are not mixed then."""
        lines: list[str] = []
        room = select.PIPE_BUF
        item, self._next_item = self._next_item, None
        while True:
            if item is None:
                if lines and self._lines.empty():
                    return lines
                item = self._lines.get()
            if isinstance(item, str) and (not lines or len(item) <= room):
                lines.append(item)
                room -= len(item)
            elif lines:
                self._next_item = item
                return lines
            elif isinstance(item, int):
                self._report_missing(item)
            item = None

    def _report_missing(self, refused: int) -> None:
        """Write how many lines are missing: of the `refused` ones and of those that were lost, what was not said yet."""
        lost, refused = self._lost, max(refused, self._reported)
        missing = refused - self._reported + lost - self._lost_reported
        if missing > 0:
            with suppress(Exception):  # else it is said when something can be written again
                self._write(self._describe_gap(missing).encode())
                self._reported, self._lost_reported = refused, lost

    def _write(self, data: bytes) -> None:
        """All of it. Raises OSError."""
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:  # whoever shares the descriptor has made it non-blocking
                select.select((), (self._descriptor,), (), POLL_SECS)
