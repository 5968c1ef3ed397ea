"""How a batch of appends is stored when not all of it can be: what is tried next, and how long a lock is waited for.

An event that the store refuses fails alone: the batch is halved until it is found. A lock that is not given up in
time is found by storing channel by channel: the locked one is blocked, and the others are stored.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import msgspec

from openguild_proto.effects import Overloaded, StorageUnavailable
from openguild_proto.effects.channels import Appended, AppendEvent, AppendFailure
from openguild_proto.limits import LOCK_TIMEOUT_MS, PROBE_LOCK_TIMEOUT_MS, RETRY_LIMIT_SECS

Outcome: TypeAlias = Appended | AppendFailure | Exception


class Attempt(msgspec.Struct, frozen=True, gc=False):
    """Store these appends in one transaction."""

    appends: Sequence[AppendEvent]
    lock_timeout_ms: int  # for each lock


class _Part(msgspec.Struct, frozen=True, gc=False):
    places: Sequence[int]  # in the batch
    lock_timeout_ms: int
    give_up: float  # monotonic seconds; not tried after that


class CommitPlan:
    """Ask for the `next_attempt`, make it, and say how it ended: `stored`, `locked`, `refused` or `unavailable`.

    When there is no next attempt `outcomes` has one for each append of the batch, in order: what was never tried,
    because locks took too long, is `Overloaded`.
    """

    __slots__ = ("_parts", "_settled", "_tried", "batch", "outcomes")

    def __init__(self, batch: Sequence[AppendEvent], *, suspect: bool) -> None:
        self.batch = batch
        self.outcomes: Sequence[Outcome] = ()
        self._settled: list[Outcome] | None = None  # once the batch has been split
        self._parts = [_Part(range(len(batch)), PROBE_LOCK_TIMEOUT_MS if suspect else LOCK_TIMEOUT_MS, math.inf)]
        self._tried = self._parts[0]

    def next_attempt(self, now: float) -> Attempt | None:
        """None: there is nothing left to try."""
        while self._parts:
            self._tried = self._parts.pop()
            if self._settled is None:
                return Attempt(self.batch, self._tried.lock_timeout_ms)
            if now < self._tried.give_up:
                return Attempt([self.batch[place] for place in self._tried.places], self._tried.lock_timeout_ms)
        return None

    def stored(self, outcomes: Sequence[Outcome]) -> None:
        """The attempt was committed: one outcome for each of its appends."""
        if self._settled is None:
            self.outcomes = outcomes
            return
        for place, outcome in zip(self._tried.places, outcomes, strict=True):
            self._settled[place] = outcome

    def locked(self, now: float) -> str | None:
        """Nothing was stored, for somebody holds a lock. Returns the channel to block, where it is known which."""
        parts: dict[str, list[int]] = {}
        for place in self._tried.places:
            parts.setdefault(self.batch[place].channel_id, []).append(place)
        if len(parts) == 1:
            self._fail(Overloaded())
            return next(iter(parts))
        self._split(list(parts.values()), PROBE_LOCK_TIMEOUT_MS, now)
        return None

    def refused(self, failure: Exception, now: float) -> AppendEvent | None:
        """Nothing was stored, for the store takes no such event. Returns the event, where it is known which."""
        places = self._tried.places
        if len(places) == 1:
            self._fail(failure)
            return self.batch[places[0]]
        half = len(places) // 2
        self._split([places[:half], places[half:]], self._tried.lock_timeout_ms, now)
        return None

    def unavailable(self, failure: StorageUnavailable) -> None:
        """The fate of the attempt is unknown. What was stored before it stays stored; the parts after it are tried."""
        self._fail(failure)

    def _fail(self, failure: Exception) -> None:
        self.stored([failure] * len(self._tried.places))

    def _split(self, parts: Sequence[Sequence[int]], lock_timeout_ms: int, now: float) -> None:
        """Each part by itself, in order; RETRY_LIMIT_SECS for all of them together."""
        if self._settled is None:
            self.outcomes = self._settled = [Overloaded() for _ in self.batch]
        give_up = now + RETRY_LIMIT_SECS
        self._parts += [_Part(places, lock_timeout_ms, give_up) for places in reversed(parts)]
