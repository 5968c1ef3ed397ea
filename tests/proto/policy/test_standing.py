"""Faults that last until a round passes without them, and a log that is not flooded."""

from __future__ import annotations

from openguild_proto.policy.standing import REPEAT_SECS, LogThrottle, Standing


def test_a_fault_stands_until_a_round_has_passed_without_it() -> None:
    standing: Standing[str] = Standing()
    standing.tell("a", "first")
    standing.tell("b", "second")
    standing.begin()
    standing.tell("b", "second")
    assert standing.end() == ["a"]
    assert (standing.first, list(standing.keys())) == ("second", ["b"])
    standing.begin()
    assert standing.end() == ["b"]
    assert standing.first is None


def test_what_is_told_between_two_rounds_stands() -> None:
    standing: Standing[str] = Standing()
    standing.begin()
    assert standing.end() == []
    standing.tell("a", "later")
    assert "a" in standing
    standing.clear()
    assert not standing.values()


def test_a_line_comes_at_once_and_then_once_a_minute_with_a_count() -> None:
    seldom = LogThrottle()
    assert seldom.due("a", 0.0) == 0
    assert [seldom.due("a", float(second)) for second in range(1, 60)] == [None] * 59
    assert seldom.due("b", 5.0) == 0, "another fault is another line"
    assert seldom.due("a", REPEAT_SECS) == 59
    assert seldom.due("a", 2 * REPEAT_SECS) == 0
