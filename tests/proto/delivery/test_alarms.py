"""Times that change wake once, at the last time that was set."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from openguild_proto.delivery.alarms import Alarms

NAMES = ("a", "b", "c")


@given(st.lists(st.tuples(st.sampled_from(NAMES), st.one_of(st.none(), st.floats(0, 100))), max_size=40))
def test_a_name_is_due_at_its_last_time(steps: list[tuple[str, float | None]]) -> None:
    alarms, due = Alarms(), dict[str, float]()
    for name, time in steps:
        if time is None:
            alarms.clear(name)
            due.pop(name, None)
        else:
            alarms.set(name, time)
            due[name] = time
    for now in sorted([*due.values(), 50.0, 100.0]):
        first = alarms.next()
        assert first is None or first <= min(due.values(), default=100.0)
        expected = {name for name, time in due.items() if time <= now}
        assert sorted(alarms.take_due(now)) == sorted(expected)
        due = {name: time for name, time in due.items() if name not in expected}
    assert not due


def test_putting_off_again_and_again_adds_nothing() -> None:
    alarms = Alarms()
    for time in range(10_000):
        alarms.set("a", 1.0 + time)
    assert len(alarms) == 1
