"""Limits how many procedures run at a time; users take turns."""

from __future__ import annotations

from openguild_proto.policy.round_robin import RoundRobin
from openguild_proto.procedures import Procedure, Procedures, Signal


class Turns:
    """Turns for procedures. `places`: how many run at a time."""

    def __init__(self, procedures: Procedures, places: int) -> None:
        self._procedures = procedures
        self._free = places
        self._waiting: RoundRobin[Signal] = RoundRobin()  # by user

    def enter(self, user_id: str) -> Procedure[None]:
        """Wait for a turn. End it with `leave`."""
        if self._free:
            self._free -= 1
            return
        turn = Signal(self._procedures)
        self._waiting.add(user_id, turn)
        yield from turn.wait()

    def leave(self) -> None:
        """End a turn, and give it to a waiting procedure, round robin by user."""
        following = self._waiting.take()
        if following is None:
            self._free += 1
        else:
            following.set()
