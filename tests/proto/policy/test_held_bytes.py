"""What is held for peers is bounded in all: of the addresses that hold much, the peers that began first go."""

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


def test_a_peer_that_was_forgotten_begins_again() -> None:
    held: HeldBytes[str] = HeldBytes(100)
    assert [held.hold(peer, ONE, 40) for peer in "ab"] == [[], []]
    held.forget("a")
    held.forget("a")
    assert held.hold("a", ONE, 40) == []
    assert held.hold("c", ONE, 40) == ["b"]


def test_a_flood_from_one_address_costs_no_other() -> None:
    held: HeldBytes[str] = HeldBytes(100)
    assert held.hold("slow", OTHER, 10) == []
    for count in range(100):
        assert held.hold(f"flood {count}", ONE, 30) == ([f"flood {count - 3}"] if count >= 3 else [])


def test_a_flood_from_many_addresses_costs_nobody_who_is_quick() -> None:
    """Each of the flood holds less than one honest peer, and has begun before it."""
    held: HeldBytes[str] = HeldBytes(1_000)
    for count in range(100):
        assert held.hold(f"flood {count}", f"2001:db8:0:{count:x}::1", 10) == []
    gone = [peer for nbytes in range(20, 200, 20) for peer in held.hold("quick", ONE, nbytes)]
    assert gone == [f"flood {count}" for count in range(18)]


def test_a_network_of_one_site_is_one_address() -> None:
    held: HeldBytes[str] = HeldBytes(100)
    assert held.hold("slow", OTHER, 20) == []
    for count in range(16):
        assert held.hold(f"flood {count}", f"2001:db8::{count:x}", 5) == []
    assert held.hold("flood 16", "2001:db8::10", 5) == ["flood 0"]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 200))))
def test_the_total_is_what_is_held(steps: list[tuple[int, int]]) -> None:
    held: HeldBytes[int] = HeldBytes(150)
    expected: dict[int, int] = {}
    for peer, nbytes in steps:
        expected[peer] = nbytes
        for closed in held.hold(peer, f"192.0.2.{peer % 3}", nbytes):
            del expected[closed]
        assert held.total_bytes == sum(expected.values()) <= 150
    for peer in range(6):
        held.forget(peer)
    assert (held.total_bytes, held._held, held._of_address) == (0, {}, {})
