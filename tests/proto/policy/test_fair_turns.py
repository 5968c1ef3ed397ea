"""Turns at few places: a user has one at a time, and nobody waits behind all requests of another."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from openguild_proto.policy.fair_turns import FairTurns


def test_many_requests_of_one_user_do_not_hold_up_another() -> None:
    turns: FairTurns[int] = FairTurns(2)
    assert [turns.enter("alice", ticket) for ticket in range(10)] == [True, *[False] * 9]
    assert turns.enter("bob", 10), "the other place is not hers"
    assert not turns.enter("carol", 11)
    assert turns.leave("bob") == ("carol", 11), "alice's wait longer, but she has a turn"
    assert turns.leave("alice") == ("alice", 1)
    assert turns.leave("carol") is None


def test_a_ticket_that_is_given_up_has_no_turn() -> None:
    turns: FairTurns[int] = FairTurns(1)
    assert [turns.enter("alice", ticket) for ticket in range(3)] == [True, False, False]
    turns.give_up(1)
    turns.give_up(1)
    assert turns.leave("alice") == ("alice", 2)


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(["enter", "leave", "give up"]))))
def test_no_place_is_free_while_somebody_without_a_turn_waits(steps: list[tuple[str, str]]) -> None:
    turns: FairTurns[int] = FairTurns(2)
    running: set[str] = set()
    waiting: list[tuple[int, str]] = []
    for ticket, (user, step) in enumerate(steps):
        if step == "enter":
            if turns.enter(user, ticket):
                running.add(user)
            else:
                waiting.append((ticket, user))
        elif step == "give up" and waiting:
            turns.give_up(waiting.pop()[0])
        elif user in running:
            running.remove(user)
            begun = turns.leave(user)
            free = [line for line in waiting if line[1] not in running]
            assert (begun is None) == (free == [])
            if begun is not None:
                assert (begun.ticket, begun.user_id) == free[0]
                waiting.remove(free[0])
                running.add(begun.user_id)
        assert len(running) <= 2
        assert len(running) == 2 or all(owner in running for _, owner in waiting)
