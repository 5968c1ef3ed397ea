"""Deadlines of expiries, and when they are to be made again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from openguild_proto.limits import MAX_CLOCK_DRIFT_SECS
from openguild_proto.policy.clock_watch import ClockWatch, deadline_of

WALL = 1_700_000_000.0


def test_an_expiry_is_as_far_away_on_both_clocks() -> None:
    assert deadline_of(int((WALL + 60) * 1000), now=5.0, wall=WALL) == 65.0
    assert deadline_of(int((WALL - 60) * 1000), now=5.0, wall=WALL) == -55.0


def test_a_clock_that_was_set_is_told_once_for_each_time() -> None:
    watch = ClockWatch()
    assert watch.moved(0.0, WALL) == 0.0
    assert watch.moved(10.0, WALL + 10) == 0.0
    assert watch.moved(11.0, WALL + 11 + 3600) == 3600.0
    assert watch.moved(12.0, WALL + 12 + 3600) == 0.0
    assert watch.moved(13.0, WALL + 13) == -3600.0
    assert watch.moved(14.0, WALL + 14) == 0.0


@given(st.lists(st.floats(-2, 2), max_size=50))
def test_what_was_last_said_is_never_far_from_the_truth(steps: list[float]) -> None:
    """However slowly the clock is moved, deadlines are right within the drift that is allowed."""
    watch, said, offset = ClockWatch(), 0.0, 0.0
    watch.moved(0.0, WALL)
    for number, step in enumerate(steps, start=1):
        offset += step
        said += watch.moved(float(number), WALL + number + offset)
        assert abs(offset - said) <= MAX_CLOCK_DRIFT_SECS + 1e-6
