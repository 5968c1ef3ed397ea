"""Turns of addresses: nobody waits behind all that another address has sent, and what waits is bounded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from openguild_proto.policy.turns_by_address import TurnsByAddress


def test_an_address_with_much_does_not_hold_up_another() -> None:
    turns: TurnsByAddress[str] = TurnsByAddress(100, 100)
    for number in range(3):
        assert turns.add("a", f"a{number}", 1)
    assert turns.take() == "a0"
    assert turns.add("b", "b0", 1)
    assert turns.add("b", "b1", 1)
    assert [turns.take() for _ in range(5)] == ["a1", "b0", "a2", "b1", None]


def test_what_has_no_bytes_has_its_turn_too() -> None:
    turns: TurnsByAddress[str] = TurnsByAddress(1, 1)
    for number in range(3):
        assert turns.add("a", f"a{number}", 0)
    assert turns.add("b", "b0", 1)
    assert [turns.take() for _ in range(5)] == ["a0", "b0", "a1", "a2", None]
    assert not turns._of_address


def test_what_waits_is_bounded() -> None:
    turns: TurnsByAddress[str] = TurnsByAddress(25, 10)
    assert turns.add("2001:db8::1", "a", 8)
    assert not turns.add("2001:db8::2", "b", 3), "the same /64"
    assert turns.add("192.0.2.1", "c", 10)
    assert not turns.add("192.0.2.2", "d", 8), "too much in all"
    assert turns.take() == "a"
    assert turns.add("192.0.2.2", "d", 8)
    assert [turns.take() for _ in range(3)] == ["c", "d", None]


@given(st.lists(st.sampled_from("abc*")))
def test_each_has_its_turn_once_in_the_order_of_its_address(steps: list[str]) -> None:
    turns: TurnsByAddress[tuple[str, int]] = TurnsByAddress(6, 3)
    waiting: list[tuple[str, int]] = []
    taken: list[tuple[str, int]] = []
    added: list[tuple[str, int]] = []
    for number, step in enumerate([*steps, *"*******"]):
        if step != "*":
            of_address = [item for item in waiting if item[0] == step]
            has_room = len(of_address) < 3 and len(waiting) < 6
            assert turns.add(step, (step, number), 1) == has_room
            if has_room:
                waiting.append((step, number))
                added.append((step, number))
        elif (item := turns.take()) is not None:
            waiting.remove(item)
            taken.append(item)
        else:
            assert not waiting
    for address in "abc":
        assert [item for item in taken if item[0] == address] == [item for item in added if item[0] == address]
