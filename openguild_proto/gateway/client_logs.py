"""The logs that a client follows, and its place in each, kept across connections (PROTOCOL 15.9)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from typing import Any, NamedTuple

import msgspec

from openguild_proto.errors import ErrorCode, LocalProtocolError
from openguild_proto.gateway.frames import Ev, Sub, SubbedLog, SubLog
from openguild_proto.limits import MAX_GATEWAY_LOGS

LINE_BYTES = 218  # maximum size of a log in a `sub`: 300 logs fit in a frame of 64 KiB
TEMPORARY = frozenset(
    code.spec.code
    for code in (ErrorCode.DATABASE_UNAVAILABLE, ErrorCode.OVERLOADED, ErrorCode.DRAINING, ErrorCode.GUILD_OFFLINE)
)


class ResumePosition(NamedTuple):
    """The last event of a log that a client has received. The sequence counts within `epoch`."""

    epoch: int
    sequence: int


BEGINNING = ResumePosition(0, 0)
"""The place before the first event of a log, in any epoch."""


def read_places(kept: Mapping[str, Any]) -> dict[str, ResumePosition]:
    """Return the places by log from stored pairs. Raises ValueError if `kept` is malformed."""
    try:
        return {log: ResumePosition(*map(int, place)) for log, place in kept.items()}
    except (AttributeError, OverflowError, TypeError):
        raise ValueError("positions must be pairs of an epoch and a sequence, by log") from None


class Faults(NamedTuple):
    """The number of gaps in the received events, and of repeated events, which were dropped."""

    gaps: int
    repeats: int


class LogState(Enum):
    """The states of a followed log."""

    WANTED = "wanted"  # to be requested when there is a connection
    RESTING = "resting"  # to be requested after a delay
    ASKED = "asked"
    FOLLOWED = "followed"


class FollowedLog:
    """One log. `place` is None until the server has said where it begins."""

    __slots__ = ("is_at_server", "place", "ref", "state", "tail")

    def __init__(self, place: ResumePosition | None, tail: int | None, *, is_at_server: bool) -> None:
        self.state = LogState.WANTED
        self.is_at_server = is_at_server  # the server still follows it from an earlier place, or will
        self.place = place
        self.tail = tail  # number of newest events to begin with if there is no place
        self.ref = 0  # of the last `sub` that named it


class Arrival(Enum):
    """The verdict on an event that has arrived."""

    NEXT = "next"
    REPEAT = "repeat"
    GAP = "gap"  # events before it are missing, or it belongs to another epoch
    UNWANTED = "unwanted"  # its log is not followed at the moment


class FollowedLogs:
    """All logs of a client. `repeats` and `gaps` count faults that a correct server never causes."""

    def __init__(self) -> None:
        self._logs: dict[str, FollowedLog] = {}
        self._has_wanted = False  # whether a log may be WANTED
        self.repeats = 0
        self.gaps = 0

    def __contains__(self, log: str) -> bool:
        return log in self._logs

    def places(self) -> dict[str, ResumePosition]:
        """Return the client's place in each log that has one."""
        return {name: log.place for name, log in self._logs.items() if log.place is not None}

    def add(self, name: str, place: ResumePosition | None, tail: int | None) -> None:
        """Follow a log after `place`, or from its newest `tail` events.

        Raises LocalProtocolError if too many logs are followed, and for arguments that no server accepts: the server would
        refuse the whole `sub` without naming the log.
        """
        _require_valid(name, place, tail)
        self._require_room([name])
        at_server = self._is_at_server(name)
        self._logs[name] = FollowedLog(place, None if place is not None else tail, is_at_server=at_server)
        self._has_wanted = True

    def _require_room(self, names: Iterable[str]) -> None:
        if len(self._logs) + sum(name not in self._logs for name in names) > MAX_GATEWAY_LOGS:
            raise LocalProtocolError(f"a socket follows at most {MAX_GATEWAY_LOGS} logs")

    def remove(self, name: str) -> bool:
        """Stop following a log. Return whether the server must be told."""
        is_at_server = self._is_at_server(name)
        self._logs.pop(name, None)
        return is_at_server

    def _is_at_server(self, name: str) -> bool:
        log = self._logs.get(name)
        return log is not None and (log.is_at_server or log.state in {LogState.ASKED, LogState.FOLLOWED})

    # --- asking --------------------------------------------------------------------------------------

    def disconnected(self) -> None:
        """Mark all logs as not followed on the server."""
        for log in self._logs.values():
            self._want(log)
            log.is_at_server = False

    def wake(self) -> None:
        """Ask again for the resting logs."""
        for log in self._logs.values():
            if log.state is LogState.RESTING:
                self._want(log)

    def _want(self, log: FollowedLog) -> None:
        log.state = LogState.WANTED
        self._has_wanted = True

    def subs(self, refs: Iterator[int], frame_bytes: int) -> Iterable[Sub]:
        """Yield the `sub` frames for all wanted logs, each of at most about `frame_bytes`."""
        if not self._has_wanted:
            return
        self._has_wanted = False
        per_sub = max(frame_bytes // LINE_BYTES, 1)
        wanted = [(name, log) for name, log in self._logs.items() if log.state is LogState.WANTED]
        for begin in range(0, len(wanted), per_sub):
            ref, lines = next(refs), []
            for name, log in wanted[begin : begin + per_sub]:
                log.state, log.ref, log.is_at_server = LogState.ASKED, ref, False
                if log.place is None:
                    lines.append(SubLog(name, tail=log.tail))
                else:
                    lines.append(SubLog(name, log.place.epoch or None, log.place.sequence))
            yield Sub(ref, lines)

    # --- answers and events of the server --------------------------------------------------------------

    def begun(self, ref: int, line: SubbedLog) -> bool:
        """Mark a log as followed. Return False for an answer that is no longer awaited."""
        log = self._logs.get(line.log)
        if log is None or log.state is not LogState.ASKED or log.ref != ref:
            return False
        log.state = LogState.FOLLOWED
        log.place = ResumePosition(line.epoch, line.after)
        return True

    def refused(self, ref: int, name: str, code: str) -> bool | None:
        """Handle the refusal of a log.

        Return True if it is requested again after a delay, False if it is dropped, None if the answer is no longer awaited.
        """
        log = self._logs.get(name)
        if log is None or log.state is not LogState.ASKED or log.ref != ref:
            return None
        if code in TEMPORARY:
            log.state = LogState.RESTING
            return True
        del self._logs[name]
        return False

    def gone(self, name: str, code: str) -> bool:
        """Handle the end of a followed log. Return whether it was followed."""
        log = self._logs.get(name)
        if log is None or log.state is not LogState.FOLLOWED:
            return False
        if code == "restarted":
            self._want(log)
        elif code == "unavailable":
            log.state = LogState.RESTING
        else:
            del self._logs[name]
        return True

    def arrived(self, event: Ev) -> Arrival:
        """Record an event that arrived and return the verdict.

        The next event advances the place. After a gap the log is requested again from its place.
        """
        log = self._logs.get(event.log)
        if log is None or log.place is None or log.state is not LogState.FOLLOWED:
            return Arrival.UNWANTED
        epoch, sequence = log.place
        if event.epoch == epoch and event.seq <= sequence:
            self.repeats += 1
            return Arrival.REPEAT
        if event.epoch != epoch or event.seq != sequence + 1:
            self.gaps += 1
            self._want(log)
            return Arrival.GAP
        log.place = ResumePosition(epoch, event.seq)
        return Arrival.NEXT

    # --- storage between runs of a program -------------------------------------------------------------

    def to_dict(self) -> dict[str, list[int]]:
        """Return the places for storage."""
        return {name: [place.epoch, place.sequence] for name, place in self.places().items()}

    def restore(self, kept: Mapping[str, list[int]]) -> None:
        """Follow the logs that `to_dict` stored, from their places. Raises ValueError, LocalProtocolError: none is followed."""
        places = read_places(kept)
        for name, place in places.items():
            _require_valid(name, place, None)
        self._require_room(places)
        for name, place in places.items():
            self.add(name, place, None)


def _require_valid(name: str, place: ResumePosition | None, tail: int | None) -> None:
    after, epoch = (place.sequence, place.epoch or None) if place is not None else (None, None)
    try:
        msgspec.convert({"log": name, "epoch": epoch, "after": after, "tail": tail}, SubLog)
    except msgspec.ValidationError as fault:
        raise LocalProtocolError(f"{name!r} cannot be followed: {fault}") from fault
