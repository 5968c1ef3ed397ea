"""A log that is not flooded."""

from __future__ import annotations

from openguild_proto.policy.log_throttle import REPEAT_SECS, LogThrottle


def test_a_line_comes_at_once_and_then_once_a_minute_with_a_count() -> None:
    throttle = LogThrottle()
    assert throttle.due("a", 0.0) == 0
    assert [throttle.due("a", float(second)) for second in range(1, 60)] == [None] * 59
    assert throttle.due("b", 5.0) == 0, "another fault is another line"
    assert throttle.due("a", REPEAT_SECS) == 59
    assert throttle.due("a", 2 * REPEAT_SECS) == 0
