"""A batch that cannot be stored whole: what is refused fails alone, a locked channel holds up nobody for long."""

from __future__ import annotations

from collections.abc import Sequence

import hypothesis.strategies as st
import pytest
from hypothesis import given

from openguild_proto.effects import Overloaded, StorageUnavailable
from openguild_proto.effects.channels import AppendEvent, AppendFailure
from openguild_proto.errors import LocalProtocolError
from openguild_proto.limits import LOCK_TIMEOUT_MS, PROBE_LOCK_TIMEOUT_MS, RETRY_LIMIT_SECS
from openguild_proto.log.commits import Attempt, CommitPlan, Outcome
from openguild_proto.records import Author
from tests.support.deeds import append

STORED = AppendFailure(kind="no_channel")  # whatever a store answers


class Refused(Exception):
    pass


class Store:
    """Stores an attempt, unless it holds an event that is bad, a channel that is locked, or comes while it is away."""

    def __init__(
        self,
        bad: set[str] = frozenset(),  # type: ignore[assignment]  # empty
        locked: set[str] = frozenset(),  # type: ignore[assignment]  # empty
        away: set[int] = frozenset(),  # type: ignore[assignment]  # empty
        users: set[str] = frozenset(),  # type: ignore[assignment]  # empty
    ) -> None:
        self.bad, self.locked, self.away, self.users = bad, locked, away, users
        self.now = 0.0
        self.attempts: list[Attempt] = []
        self.stored: list[str] = []  # event ids
        self.blocked: list[str] = []
        self.found: list[str] = []

    def run(self, batch: Sequence[AppendEvent], *, suspect: bool = False) -> Sequence[Outcome]:
        plan = CommitPlan(batch, suspect=suspect)
        while (attempt := plan.next_attempt(self.now)) is not None:
            self.attempts.append(attempt)
            if len(self.attempts) in self.away:
                plan.unavailable(StorageUnavailable())
            elif any(event.channel_id in self.locked or author_of(event) in self.users for event in attempt.appends):
                self.now += attempt.lock_timeout_ms / 1000
                held = self.users.intersection(map(author_of, attempt.appends))
                if (channel_id := plan.locked(self.now, held)) is not None:
                    self.blocked.append(channel_id)
            elif any(event.event_id in self.bad for event in attempt.appends):
                if (event := plan.refused(Refused(), self.now)) is not None:
                    self.found.append(event.event_id)
            else:
                self.stored += [event.event_id for event in attempt.appends]
                plan.stored([STORED for _ in attempt.appends])
        return plan.outcomes


def author_of(event: AppendEvent) -> str:
    return event.author.user_id if event.author is not None else ""


def kinds(outcomes: Sequence[Outcome]) -> list[type]:
    return [type(outcome) for outcome in outcomes]


def test_a_good_batch_is_one_attempt() -> None:
    batch = [append(f"c{number % 3}") for number in range(10)]
    store = Store()
    assert list(store.run(batch)) == [STORED] * 10
    assert store.attempts == [Attempt(batch, LOCK_TIMEOUT_MS)]


def test_a_suspect_channel_has_little_patience() -> None:
    store = Store()
    store.run([append("c")], suspect=True)
    assert [attempt.lock_timeout_ms for attempt in store.attempts] == [PROBE_LOCK_TIMEOUT_MS]


def test_a_bad_event_fails_alone_and_is_found_by_halving() -> None:
    batch = [append("c") for _ in range(256)]
    store = Store(bad={batch[100].event_id})
    outcomes = store.run(batch)
    assert kinds(outcomes) == [AppendFailure] * 100 + [Refused] + [AppendFailure] * 155
    assert store.found == [batch[100].event_id]
    assert store.stored == [event.event_id for event in batch if event.event_id != batch[100].event_id], "in order"
    assert len(store.attempts) == 1 + 2 * 8


def test_a_locked_channel_is_blocked_and_the_others_are_stored() -> None:
    batch = [append(channel) for channel in ("a", "locked", "b", "a", "locked")]
    store = Store(locked={"locked"})
    outcomes = store.run(batch)
    assert kinds(outcomes) == [AppendFailure, Overloaded, AppendFailure, AppendFailure, Overloaded]
    assert store.blocked == ["locked"]
    assert [attempt.lock_timeout_ms for attempt in store.attempts] == [LOCK_TIMEOUT_MS] + [PROBE_LOCK_TIMEOUT_MS] * 3


def test_a_batch_of_one_locked_channel_is_not_tried_again() -> None:
    store = Store(locked={"c"})
    assert kinds(store.run([append("c"), append("c")])) == [Overloaded, Overloaded]
    assert (store.blocked, len(store.attempts)) == (["c"], 1)


def test_appends_of_a_locked_user_fail_and_the_others_of_their_channel_are_stored() -> None:
    batch = [append("a"), append("a", author=Author("held")), append("b", author=Author("free")), append("a")]
    store = Store(users={"held"})
    assert kinds(store.run(batch)) == [AppendFailure, Overloaded, AppendFailure, AppendFailure]
    assert store.stored == [batch[place].event_id for place in (0, 2, 3)], "in order"
    assert store.blocked == []
    assert [attempt.lock_timeout_ms for attempt in store.attempts] == [LOCK_TIMEOUT_MS] * 2


def test_a_locked_channel_beside_a_locked_user_is_found_too() -> None:
    batch = [append("a", author=Author("held")), append("locked"), append("b")]
    store = Store(users={"held"}, locked={"locked"})
    assert kinds(store.run(batch)) == [Overloaded, Overloaded, AppendFailure]
    assert store.blocked == ["locked"]


def test_a_batch_of_one_locked_user_is_not_tried_again() -> None:
    store = Store(users={"held"})
    assert kinds(store.run([append("c", author=Author("held"))], suspect=True)) == [Overloaded]
    assert [attempt.lock_timeout_ms for attempt in store.attempts] == [PROBE_LOCK_TIMEOUT_MS]
    assert store.blocked == []


def test_where_every_channel_is_locked_it_gives_up_in_time() -> None:
    batch = [append(f"c{number}") for number in range(200)]
    store = Store(locked={event.channel_id for event in batch})
    assert kinds(store.run(batch)) == [Overloaded] * 200
    assert store.now <= LOCK_TIMEOUT_MS / 1000 + RETRY_LIMIT_SECS + PROBE_LOCK_TIMEOUT_MS / 1000
    assert 0 < len(store.blocked) < 200, "the others are not known to be locked"


def test_a_store_that_goes_away_leaves_the_whole_batch_unknown() -> None:
    assert kinds(Store(away={1}).run([append("a"), append("b")])) == [StorageUnavailable] * 2


def test_what_was_stored_before_the_store_went_away_is_stored() -> None:
    batch = [append(channel) for channel in ("a", "locked", "b")]
    assert kinds(Store(locked={"locked"}, away={4}).run(batch)) == [AppendFailure, Overloaded, StorageUnavailable]


@given(
    channels=st.lists(st.sampled_from("abcd"), min_size=1, max_size=60),
    bad=st.sets(st.integers(0, 59)),
    locked=st.sets(st.sampled_from("abcd")),
    away=st.sets(st.integers(1, 30), max_size=4),
)
def test_every_append_has_the_outcome_that_it_had(
    channels: list[str], bad: set[int], locked: set[str], away: set[int]
) -> None:
    batch = [append(channel) for channel in channels]
    store = Store({batch[place].event_id for place in bad if place < len(batch)}, locked, away)
    outcomes = store.run(batch)
    assert len(outcomes) == len(batch)
    assert len(store.stored) == len(set(store.stored)), "nothing is stored twice"
    for event, outcome in zip(batch, outcomes, strict=True):
        assert (event.event_id in store.stored) == (outcome is STORED)
        assert isinstance(outcome, Refused) == (event.event_id in store.found)
        if isinstance(outcome, Overloaded):
            assert event.channel_id in locked
        assert not (event.channel_id in locked or event.event_id in store.bad) or outcome is not STORED
    for channel in "abcd":
        mine = [event.event_id for event in batch if event.channel_id == channel and event.event_id in store.stored]
        assert [event_id for event_id in store.stored if event_id in mine] == mine, "a channel keeps its order"


def test_reports_that_answer_no_attempt_are_misuse_and_change_nothing() -> None:
    plan = CommitPlan([append("c"), append("c")], suspect=False)
    reports = (
        lambda: plan.stored([STORED, STORED]),
        lambda: plan.locked(0.0),
        lambda: plan.refused(Refused(), 0.0),
        lambda: plan.unavailable(StorageUnavailable()),
    )
    for report in reports:
        with pytest.raises(LocalProtocolError, match="no attempt"):
            report()
    assert plan.next_attempt(0.0) is not None
    with pytest.raises(LocalProtocolError, match="not reported"):
        plan.next_attempt(0.0)
    with pytest.raises(LocalProtocolError, match="1 outcomes of 2"):
        plan.stored([STORED])
    plan.stored([STORED, STORED])
    for report in reports:
        with pytest.raises(LocalProtocolError, match="no attempt"):
            report()
    assert plan.next_attempt(0.0) is None
    assert plan.outcomes == [STORED, STORED]
