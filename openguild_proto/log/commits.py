"""Plans how to store a batch of appends when part of it fails: the next attempt and its lock timeout.

An event that the store refuses fails alone: the batch is halved until the event is found. After a lock timeout the appends
of users whose rows are locked fail, and the others are retried. If no user is locked, the batch is stored channel by
channel: the locked channel is blocked, and the others are stored.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import TypeAlias

import msgspec

from openguild_proto.effects import Overloaded, StorageUnavailable
from openguild_proto.effects.channels import Appended, AppendEvent, AppendFailure, Unchanged
from openguild_proto.errors import LocalProtocolError
from openguild_proto.limits import LOCK_TIMEOUT_MS, PROBE_LOCK_TIMEOUT_MS, RETRY_LIMIT_SECS

Outcome: TypeAlias = Appended | Unchanged | AppendFailure | Exception


class Attempt(msgspec.Struct, frozen=True, gc=False):
    """Store these appends in one transaction."""

    appends: Sequence[AppendEvent]
    lock_timeout_ms: int  # of each lock


class _Part(msgspec.Struct, frozen=True, gc=False):
    places: Sequence[int]  # indices in the batch
    lock_timeout_ms: int
    give_up: float  # monotonic seconds, after which it is not attempted


class CommitPlan:
    """Make the `next_attempt` and report its result: `stored`, `locked`, `refused` or `unavailable`; repeat.

    After the last attempt `outcomes` has one outcome for each append of the batch, in order. An append that was not attempted
    in time has `Overloaded`. A report without an attempt, a second one for the same attempt, or one with a wrong number of
    outcomes raises LocalProtocolError and changes nothing.
    """

    __slots__ = ("_parts", "_settled", "_tried", "batch", "outcomes")

    def __init__(self, batch: Sequence[AppendEvent], *, suspect: bool) -> None:
        self.batch = batch
        self.outcomes: Sequence[Outcome] = ()
        self._settled: list[Outcome] | None = None  # set when the batch has been split
        self._parts = [_Part(range(len(batch)), PROBE_LOCK_TIMEOUT_MS if suspect else LOCK_TIMEOUT_MS, math.inf)]
        self._tried: _Part | None = None  # the running attempt

    def next_attempt(self, now: float) -> Attempt | None:
        """Return the next attempt, or None if the plan is finished."""
        if self._tried is not None:
            raise LocalProtocolError("the end of the last attempt was not reported")
        while self._parts:
            part = self._parts.pop()
            if self._settled is None or now < part.give_up:
                self._tried = part
                appends = self.batch if self._settled is None else [self.batch[place] for place in part.places]
                return Attempt(appends, part.lock_timeout_ms)
        return None

    def _end_attempt(self) -> _Part:
        part, self._tried = self._tried, None
        if part is None:
            raise LocalProtocolError("no attempt is under way")
        return part

    def stored(self, outcomes: Sequence[Outcome]) -> None:
        """Report a committed attempt, with one outcome for each of its appends."""
        if self._tried is not None and len(outcomes) != len(self._tried.places):
            raise LocalProtocolError(f"{len(outcomes)} outcomes of {len(self._tried.places)} appends")
        self._settle(self._end_attempt(), outcomes)

    def _settle(self, part: _Part, outcomes: Sequence[Outcome]) -> None:
        if self._settled is None:
            self.outcomes = outcomes
            return
        for place, outcome in zip(part.places, outcomes, strict=True):
            self._settled[place] = outcome

    def locked(self, now: float, users: Collection[str] = ()) -> str | None:
        """Report a lock timeout: nothing was stored. Return the channel to block, if it is known.

        `users`: authors of the attempt whose rows others have locked.
        """
        tried = self._end_attempt()
        rest = [place for place in tried.places if not _is_of(self.batch[place], users)]
        if len(rest) < len(tried.places):
            patience = LOCK_TIMEOUT_MS if self._settled is None else PROBE_LOCK_TIMEOUT_MS
            self._split([rest] if rest else [], patience, now)
            return None
        parts: dict[str, list[int]] = {}
        for place in tried.places:
            parts.setdefault(self.batch[place].channel_id, []).append(place)
        if len(parts) == 1:
            self._fail(tried, Overloaded())
            return next(iter(parts))
        self._split(list(parts.values()), PROBE_LOCK_TIMEOUT_MS, now)
        return None

    def refused(self, failure: Exception, now: float) -> AppendEvent | None:
        """Report that the store refused an event: nothing was stored. Return the event, if it is known."""
        tried = self._end_attempt()
        places = tried.places
        if len(places) == 1:
            self._fail(tried, failure)
            return self.batch[places[0]]
        half = len(places) // 2
        self._split([places[:half], places[half:]], tried.lock_timeout_ms, now)
        return None

    def unavailable(self, failure: StorageUnavailable) -> None:
        """Report an attempt with an unknown outcome. Earlier parts stay stored, later ones are attempted."""
        self._fail(self._end_attempt(), failure)

    def _fail(self, part: _Part, failure: Exception) -> None:
        self._settle(part, [failure] * len(part.places))

    def _split(self, parts: Sequence[Sequence[int]], lock_timeout_ms: int, now: float) -> None:
        """Attempt each part separately, in order, within RETRY_LIMIT_SECS for all of them."""
        if self._settled is None:
            self.outcomes = self._settled = [Overloaded() for _ in self.batch]
        give_up = now + RETRY_LIMIT_SECS
        self._parts += [_Part(places, lock_timeout_ms, give_up) for places in reversed(parts)]


def _is_of(append: AppendEvent, users: Collection[str]) -> bool:
    return append.author is not None and append.author.user_id in users
