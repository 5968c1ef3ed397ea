"""Log lines are remembered by request, within bounds of lines and of characters."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from openguild_proto.diagnosis.lines import CUT, LineHistory


def test_the_lines_of_a_request_come_in_order() -> None:
    history = LineHistory()
    for request_id, line in (("a", "one"), ("b", "other"), ("a", "two")):
        history.add(request_id, line)
    assert history.find("a") == ["one", "two"]
    assert history.find("c") == []


def test_a_long_line_is_cut() -> None:
    history = LineHistory(max_chars=10)
    history.add("a", "x" * 11)
    assert history.find("a") == ["x" * 10 + CUT]


@given(st.lists(st.integers(0, 200), max_size=200))
def test_the_bounds_hold_and_the_newest_stay(lengths: list[int]) -> None:
    history = LineHistory(capacity=20, max_chars=100)
    for length in lengths:
        history.add("a", "x" * length)
    kept = history.find("a")
    assert len(history) == len(kept) <= 20
    assert sum(map(len, kept)) <= 20 * 100 // 8
    cut = ["x" * length if length <= 100 else "x" * 100 + CUT for length in lengths]
    assert kept == cut[len(cut) - len(kept) :]
    following = len(cut) - len(kept) - 1  # the line that was dropped last
    if following >= 0:
        assert len(kept) == 20 or sum(map(len, kept)) + len(cut[following]) > 20 * 100 // 8
