"""One time for all replicas, out of readings of the store's clock."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from openguild_proto.limits import CLOCK_DRIFT
from openguild_proto.policy.shared_clock import Reading, SharedClock


def test_it_counts_on_from_the_middle_of_the_question() -> None:
    clock = SharedClock()
    assert clock.wall_ms(5.0) is None
    assert not clock.is_set
    assert clock.take(Reading.between(10.0, 10.2, 1_000_000.0)) == 0.0
    assert clock.is_set
    assert clock.wall_ms(10.1) == pytest.approx(1_000_000.0)
    assert clock.wall_ms(20.1) == pytest.approx(1_010_000.0)


def test_a_slow_answer_does_not_replace_a_quick_one_until_that_is_old() -> None:
    clock = SharedClock()
    clock.take(Reading.between(0.0, 0.002, 1_000.0))
    assert clock.take(Reading.between(10.0, 12.0, 11_500.0)) == 0.0
    assert clock.wall_ms(20.001) == pytest.approx(21_000.0)
    old = 1.5 / CLOCK_DRIFT
    assert clock.take(Reading.between(old, old + 2.0, 1_000 * old + 2_400.0)) == 0.0
    assert clock.wall_ms(old + 1.0) == pytest.approx(1_000 * old + 2_400.0)


@pytest.mark.parametrize("moved", [15.0, -15.0, 3_600.0, -3_600.0])
def test_a_clock_that_was_set_is_followed_at_once(moved: float) -> None:
    clock = SharedClock()
    clock.take(Reading.between(0.0, 0.002, 1_000_000.0))
    assert clock.take(Reading.between(10.0, 12.0, 1_011_000.0 + 1_000 * moved)) == pytest.approx(moved, abs=0.01)
    assert clock.wall_ms(11.0) == pytest.approx(1_011_000.0 + 1_000 * moved)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 60)), min_size=1, max_size=20))
def test_it_is_never_further_off_than_the_best_answer_allows(answers: list[tuple[float, float, float]]) -> None:
    """The store's clock is true here and looked at somewhere between question and answer."""
    clock, now, best = SharedClock(), 0.0, float("inf")
    for took, part, pause in answers:
        now += pause
        asked, answered = now, now + took
        assert clock.take(Reading.between(asked, answered, 1_000 * (asked + part * took))) == 0.0
        now = answered
        best = min(best, took / 2)
        shared = clock.wall_ms(now)
        assert shared is not None
        assert abs(shared / 1000 - now) <= best + now * CLOCK_DRIFT + 1e-6
