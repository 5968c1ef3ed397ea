"""Read positions that are dropped with their user; what is sent when: tests/conformance/client/read_marks."""

from __future__ import annotations

from openguild_proto.client import ReadMarks


def test_what_waits_and_what_is_on_its_way_are_dropped() -> None:
    marks: ReadMarks[str] = ReadMarks(lambda: 0.5)
    for channel in ("c", "d"):
        marks.add(channel, 1, channel)
    assert marks.take(0.0) is not None
    assert sorted(marks.clear()) == ["c", "d"]
    assert not marks
    assert marks.answered() == [], "the answer for the former user is nobody's"
    marks.unanswered(0.0)
    assert marks.take(100.0) is None
