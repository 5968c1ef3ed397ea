"""What is held for peers is bounded in all: of the address that has most, the one that began first goes first."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from openguild_proto.policy.held_bytes import HeldBytes

ONE, OTHER = "192.0.2.1", "192.0.2.2"


def test_the_one_that_began_first_goes_first() -> None:
    held: HeldBytes[str] = HeldBytes(100)
    assert [held.hold(peer, ONE, 30) for peer in "abc"] == [[], [], []]
    assert held.hold("a", ONE, 60) == ["a"], "more of what it began first"
    assert held.hold("d", ONE, 40) == []
    assert held.hold("d", ONE, 80) == ["b", "c"]
    assert held.total_bytes == 80
    assert held.hold("d", ONE, 120) == ["d"], "one alone is bounded too"
    assert held.total_bytes == 0


def test_who_was_forgotten_begins_again() -> None:
    held: HeldBytes[str] = HeldBytes(100)
    assert [held.hold(peer, ONE, 40) for peer in "ab"] == [[], []]
    held.hold("a", ONE, 0)
    held.hold("a", ONE, 0)
    assert held.hold("a", ONE, 40) == []
    assert held.hold("c", ONE, 40) == ["b"]


def test_a_flood_from_one_address_costs_no_other() -> None:
    held: HeldBytes[str] = HeldBytes(100)
    assert held.hold("slow", OTHER, 30) == []
    for count in range(100):
        assert held.hold(f"flood {count}", ONE, 20) == ([f"flood {count - 3}"] if count >= 3 else [])
    assert held.hold("same network", "2001:db8::1", 10) == []
    given_up = ["flood 97", "same network", "same network too"]
    assert held.hold("same network too", "2001:db8::2", 45) == given_up, "a /64 is one address"
    assert held.hold("slow", OTHER, 50) == []


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 200))))
def test_the_total_is_what_is_held(steps: list[tuple[int, int]]) -> None:
    held: HeldBytes[int] = HeldBytes(150)
    expected: dict[int, int] = {}
    for peer, nbytes in steps:
        expected[peer] = nbytes
        for closed in held.hold(peer, f"192.0.2.{peer % 2}", nbytes):
            del expected[closed]
        assert held.total_bytes == sum(expected.values()) <= 150
    for peer in range(6):
        held.hold(peer, f"192.0.2.{peer % 2}", 0)
    assert (held._held, held._of_address, held._totals) == ({}, {}, {})
