"""What is held for peers is bounded in all: the one that began first goes first."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from openguild_proto.policy.held_bytes import HeldBytes


def test_the_one_that_began_first_goes_first() -> None:
    held: HeldBytes[str] = HeldBytes(100)
    assert [held.hold(peer, 30) for peer in "abc"] == [[], [], []]
    assert held.hold("a", 60) == ["a"], "more of what it began first"
    assert held.hold("d", 40) == []
    assert held.hold("d", 80) == ["b", "c"]
    assert held.total_bytes == 80
    assert held.hold("d", 120) == ["d"], "one alone is bounded too"
    assert held.total_bytes == 0


def test_who_was_forgotten_begins_again() -> None:
    held: HeldBytes[str] = HeldBytes(100)
    assert [held.hold(peer, 40) for peer in "ab"] == [[], []]
    held.hold("a", 0)
    held.hold("a", 0)
    assert held.hold("a", 40) == []
    assert held.hold("c", 40) == ["b"]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 200))))
def test_the_total_is_what_is_held(steps: list[tuple[int, int]]) -> None:
    held: HeldBytes[int] = HeldBytes(150)
    expected: dict[int, int] = {}
    for peer, nbytes in steps:
        expected[peer] = nbytes
        for closed in held.hold(peer, nbytes):
            del expected[closed]
        assert held.total_bytes == sum(expected.values()) <= 150
