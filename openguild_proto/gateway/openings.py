"""The logs of one `sub` until all of them are answered, and the position where each begins (PROTOCOL 15.3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from openguild_proto.errors import ErrorCode
from openguild_proto.gateway.frames import Sub, SubbedLog, SubLog


def decide_begin(asked: SubLog, epoch: int, head: int, base: int = 0) -> SubbedLog:
    """Return where a log begins for the socket: at the requested position, or at its tail or its head.

    A position of another epoch, beyond the head or before the `base` of a mirrored log does not identify an event here, so
    the log is not `recovered`.
    """
    known = asked.after is not None
    fits = asked.after is not None and base <= asked.after <= head and asked.epoch in {None, epoch}
    if asked.after is not None and fits:
        after = asked.after
    else:
        after = head - min(asked.tail or 0, head - base)
    return SubbedLog(asked.log, epoch, after, head, recovered=fits or not known)


class Refused(NamedTuple):
    """A log of a `sub` that is refused without asking the owner. `message` None: the message of the code."""

    log: str
    code: ErrorCode
    message: str | None = None


class CheckedSub(NamedTuple):
    """The result of checking a `sub`: logs to request from the owner, and refused logs."""

    logs: tuple[str, ...]
    refused: tuple[Refused, ...]


class Openings:
    """The logs of one `sub` that are not answered yet.

    `number`: of the action that is being answered (`CountReads`, then `Subscribe`), 0 for none. `ref`: of the `sub`.
    """

    __slots__ = ("_asked", "number", "ref")

    def __init__(self) -> None:
        self.number = 0
        self.ref = 0
        self._asked: dict[str, SubLog] | None = None

    def begin(self, sub: Sub, follows: Callable[[str], bool], room: int) -> CheckedSub:
        """Start a `sub`. `room`: how many more logs the socket may follow; logs that it already `follows` need no room."""
        asked: dict[str, SubLog] = {}
        refused: list[Refused] = []
        named = {log.log: log for log in reversed(sub.logs)}  # only the first entry of a log counts
        for log in (log for log in sub.logs if named[log.log] is log):
            if log.after is not None and log.tail is not None:
                refused.append(Refused(log.log, ErrorCode.VALIDATION, "after cannot be combined with tail"))
            elif log.epoch is not None and log.after is None:
                refused.append(Refused(log.log, ErrorCode.VALIDATION, "epoch needs after"))
            elif room > 0 or follows(log.log):
                room -= not follows(log.log)
                asked[log.log] = log
            else:
                refused.append(Refused(log.log, ErrorCode.LIMIT_REACHED))
        self.ref = sub.ref
        self._asked = asked or None
        return CheckedSub(tuple(asked), tuple(refused))

    def take(self, number: int, log: str) -> SubLog | None:
        """Return the requested `SubLog` of a log, once. None: this answer is not awaited. After the last answer `number` is 0."""
        if number != self.number or self._asked is None:
            return None
        asked = self._asked.pop(log, None)
        if not self._asked:
            self.clear()
        return asked

    def clear(self) -> None:
        """Stop waiting for answers."""
        self._asked = None
        self.number = 0
