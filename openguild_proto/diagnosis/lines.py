"""Remembers the log lines of requests and sockets, by request id."""

from __future__ import annotations

from collections import deque

from openguild_proto.limits import MAX_REMEMBERED_LINE_CHARS, MAX_REMEMBERED_LINES

CUT = "... (cut)"


class LineHistory:
    """The newest lines, whole or truncated, bounded in lines and in total characters."""

    def __init__(self, capacity: int = MAX_REMEMBERED_LINES, max_chars: int = MAX_REMEMBERED_LINE_CHARS) -> None:
        self._capacity = capacity
        self._max_chars = max_chars  # per line
        self._room = capacity * max_chars // 8  # for all lines; most are short
        self._chars = 0
        self._lines: deque[tuple[str, str]] = deque()

    def add(self, request_id: str, line: str) -> None:
        """Add a line. Drops the oldest ones if full."""
        if len(line) > self._max_chars:
            line = line[: self._max_chars] + CUT
        self._lines.append((request_id, line))
        self._chars += len(line)
        while len(self._lines) > self._capacity or self._chars > self._room:
            self._chars -= len(self._lines.popleft()[1])

    def find(self, request_id: str) -> list[str]:
        """Return the lines of a request, oldest first."""
        return [line for each, line in self._lines if each == request_id]

    def __len__(self) -> int:
        return len(self._lines)
