"""Any order, any repeats: released in order, each once, and a hole is never forgotten."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from openguild_proto.errors import LocalProtocolError
from openguild_proto.log.sequencer import Sequencer


@given(st.permutations(range(1, 15)), st.lists(st.integers(0, 14)), st.integers(1, 20))
def test_everything_offered_is_released_in_order_once(order: list[int], repeats: list[int], max_held: int) -> None:
    sequencer: Sequencer[int] = Sequencer(0, max_held=max_held)
    released: list[tuple[int, int]] = []
    for place, sequence in enumerate(order):
        released += sequencer.offer(sequence, sequence * 10)
        if place < len(repeats):
            released += sequencer.offer(repeats[place], repeats[place] * 10)
        assert sequencer.held <= max_held
    while (hole := sequencer.missing()) is not None:  # whoever owns the log fills what was dropped at the bound
        for sequence in range(hole[0] + 1, hole[1]):
            released += sequencer.offer(sequence, sequence * 10)
    assert released == [(sequence, sequence * 10) for sequence in range(1, 15)]


@given(st.integers(0, 5), st.sets(st.integers(1, 20)))
def test_missing_names_the_first_hole(head: int, offered: set[int]) -> None:
    sequencer: Sequencer[str] = Sequencer(head)
    for sequence in sorted(offered, reverse=True):
        sequencer.offer(sequence, "")
    waiting = [sequence for sequence in offered if sequence > sequencer.head]
    assert sequencer.missing() == ((sequencer.head, min(waiting)) if waiting else None)


def test_a_head_heard_of_is_missing_until_it_comes() -> None:
    sequencer: Sequencer[str] = Sequencer(3)
    sequencer.saw_head(5)
    assert sequencer.missing() == (3, 6)
    assert sequencer.offer(4, "a") == [(4, "a")]
    assert sequencer.missing() == (4, 6)
    assert sequencer.offer(5, "b") == [(5, "b")]
    assert sequencer.missing() is None


@given(st.lists(st.integers(1, 12), max_size=20), st.integers(0, 12))
def test_what_came_before_the_head_was_known_is_released_behind_it(early: list[int], head: int) -> None:
    sequencer: Sequencer[int] = Sequencer()
    for sequence in early:
        assert sequencer.offer(sequence, sequence) == []
        assert sequencer.missing() is None, "without a head nothing is missing yet"
    released = sequencer.begin(head)
    while (hole := sequencer.missing()) is not None:
        for sequence in range(hole[0] + 1, hole[1]):
            released += sequencer.offer(sequence, sequence)
    assert released == [(sequence, sequence) for sequence in range(head + 1, max([head, *early]) + 1)]


def test_a_log_that_went_back_is_believed_at_the_second_reading() -> None:
    sequencer: Sequencer[str] = Sequencer(9)
    sequencer.offer(12, "of the other log")
    assert not sequencer.went_back(9, 7, 9), "the first reading was stale"
    assert not sequencer.went_back(9, 9, 9)
    assert sequencer.went_back(9, 7, 8)
    sequencer.restart(8)
    assert not sequencer.went_back(9, 7, 8), "done already"
    assert (sequencer.held, sequencer.missing()) == (0, None)
    assert sequencer.offer(9, "again") == [(9, "again")]


def test_what_waits_is_bounded_in_bytes_and_still_missed() -> None:
    sequencer: Sequencer[bytes] = Sequencer(0, max_held_bytes=100)
    sequencer.offer(2, b"a", 60)
    sequencer.offer(3, b"b", 60)
    assert sequencer.held == 1
    assert sequencer.offer(1, b"c", 60) == [(1, b"c"), (2, b"a")]
    assert sequencer.missing() == (2, 4)
    sequencer.offer(4, b"d", 100)
    assert sequencer.held == 1, "what was released gives its place back"


def test_nothing_is_an_item_as_any() -> None:
    sequencer: Sequencer[None] = Sequencer(0)
    sequencer.offer(2, None, 9)
    assert sequencer.offer(1, None) == [(1, None), (2, None)]
    assert (sequencer.held, sequencer.missing()) == (0, None)


def test_a_head_is_set_once() -> None:
    sequencer: Sequencer[str] = Sequencer()
    sequencer.begin(0)
    assert sequencer.offer(1, "a") == [(1, "a")]
    with pytest.raises(LocalProtocolError, match="restart"):
        sequencer.begin(0)
    assert sequencer.head == 1
