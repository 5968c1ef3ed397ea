"""Turns of addresses: nobody waits behind all that another address has sent."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from openguild_proto.policy.turns_by_address import TurnsByAddress


def test_an_address_with_much_does_not_hold_up_another() -> None:
    turns: TurnsByAddress[str] = TurnsByAddress()
    for number in range(3):
        turns.add("a", f"a{number}")
    assert turns.take() == "a0"
    turns.add("b", "b0")
    turns.add("b", "b1")
    assert [turns.take() for _ in range(5)] == ["a1", "b0", "a2", "b1", None]


@given(st.lists(st.sampled_from("abc*")))
def test_each_has_its_turn_once_in_the_order_of_its_address(steps: str) -> None:
    turns: TurnsByAddress[tuple[str, int]] = TurnsByAddress()
    added: list[tuple[str, int]] = []
    taken: list[tuple[str, int]] = []
    for number, step in enumerate(steps):
        if step != "*":
            turns.add(step, (step, number))
            added.append((step, number))
        elif (item := turns.take()) is not None:
            taken.append(item)
        else:
            assert len(taken) == len(added), "nothing waits"
    while (item := turns.take()) is not None:
        taken.append(item)
    for address in "abc":
        assert [item for item in taken if item[0] == address] == [item for item in added if item[0] == address]
