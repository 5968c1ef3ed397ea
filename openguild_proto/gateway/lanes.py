"""A client's requests that are waiting: commands in one lane, `sub` and `unsub` in the other (PROTOCOL 15.4.2).

Each lane keeps the client's order and runs one request at a time, so that order and limits are as on one HTTP connection.
"""

from __future__ import annotations

from collections import deque
from typing import TypeAlias

from openguild_proto.gateway.frames import AnyCommand, Err, Sub, Unsub
from openguild_proto.limits import MAX_HELD_FRAME_BYTES, MAX_HELD_FRAMES

Change: TypeAlias = Sub | Unsub
Command: TypeAlias = AnyCommand | Err  # the refusal of a command received before `ready`


class Lanes:
    """Held frames, with their sizes as received."""

    __slots__ = ("_changes", "_commands", "_nbytes")

    def __init__(self) -> None:
        self._commands: deque[tuple[Command, int]] | None = None  # None while empty
        self._changes: deque[tuple[Change, int]] | None = None
        self._nbytes = 0

    @property
    def is_full(self) -> bool:
        """Whether the socket must not be read for now, because so much is held."""
        count = len(self._commands or ()) + len(self._changes or ())
        return count >= MAX_HELD_FRAMES or self._nbytes >= MAX_HELD_FRAME_BYTES

    def add(self, frame: Command | Change, nbytes: int) -> None:
        """Append a frame to its lane."""
        if isinstance(frame, (Sub, Unsub)):
            if self._changes is None:
                self._changes = deque()
            self._changes.append((frame, nbytes))
        else:
            if self._commands is None:
                self._commands = deque()
            self._commands.append((frame, nbytes))
        self._nbytes += nbytes

    def next_command(self) -> Command | None:
        """Remove and return the next command, or None if there is none."""
        if not self._commands:
            return None
        command, nbytes = self._commands.popleft()
        self._commands = self._commands or None
        self._nbytes -= nbytes
        return command

    def next_change(self) -> Change | None:
        """Remove and return the next `sub` or `unsub`, or None if there is none."""
        if not self._changes:
            return None
        change, nbytes = self._changes.popleft()
        self._changes = self._changes or None
        self._nbytes -= nbytes
        return change

    def clear(self) -> None:
        """Drop all frames, because the socket has ended."""
        self._commands = self._changes = None
        self._nbytes = 0
