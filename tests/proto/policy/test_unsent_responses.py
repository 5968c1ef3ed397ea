"""Answers that wait for slow readers are bounded in all: who has waited longest goes first."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from openguild_proto.policy.unsent_responses import UnsentResponses


def test_who_has_waited_longest_goes_first() -> None:
    waiting: UnsentResponses[str] = UnsentResponses(100)
    assert [waiting.begin(name, 40) for name in "abc"] == [[], [], ["a"]]
    waiting.end("a")
    assert waiting.begin("b", 40) == [], "blocked again: it has moved on"
    assert waiting.begin("d", 90) == ["c", "b"]
    assert waiting.total_bytes == 90


def test_one_alone_is_not_ended_for_its_size() -> None:
    waiting: UnsentResponses[str] = UnsentResponses(100)
    assert waiting.begin("a", 1_000) == []
    assert waiting.begin("b", 1) == ["a"]
    waiting.end("b")
    assert waiting.total_bytes == 0


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5), st.integers(0, 100))))
def test_the_total_is_what_those_hold_who_wait(steps: list[tuple[bool, int, int]]) -> None:
    waiting: UnsentResponses[int] = UnsentResponses(150)
    held: dict[int, int] = {}
    for begins, reader, nbytes in steps:
        held.pop(reader, None)
        if begins:
            held[reader] = nbytes
            for left in waiting.begin(reader, nbytes):
                del held[left]
        else:
            waiting.end(reader)
        assert waiting.total_bytes == sum(held.values()) <= 150
