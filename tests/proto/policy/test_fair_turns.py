"""Turns at few places: a user has a part of them, and nobody waits behind all requests of another."""

from __future__ import annotations

from collections import Counter, deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openguild_proto.policy.fair_turns import FairTurns


def enter(turns: FairTurns[int], user: str, ticket: int) -> bool:
    begins = turns.begin(user)
    if not begins:
        turns.wait(user, ticket)
    return begins


def test_many_requests_of_one_user_do_not_hold_up_another() -> None:
    turns: FairTurns[int] = FairTurns(2)
    assert [enter(turns, "alice", ticket) for ticket in range(10)] == [True, *[False] * 9]
    assert enter(turns, "bob", 10), "the other place is not hers"
    assert not enter(turns, "carol", 11)
    assert turns.leave("bob") == ("carol", 11), "alice's wait longer, but she has a turn"
    assert turns.leave("alice") == ("alice", 1)
    assert turns.leave("carol") is None
    assert turns.free == 1


def test_users_who_may_have_several_have_them_one_after_the_other() -> None:
    turns: FairTurns[int] = FairTurns(4, each=2)
    assert [enter(turns, "alice", ticket) for ticket in range(6)] == [True, True, *[False] * 4]
    assert [enter(turns, "bob", ticket) for ticket in range(10, 14)] == [True, True, False, False]
    assert not enter(turns, "carol", 20)
    assert [turns.leave("alice"), turns.leave("alice"), turns.leave("bob")] == [
        ("carol", 20),
        ("alice", 2),
        ("alice", 3),
    ]
    assert turns.leave("carol") == ("bob", 12)


def test_nobody_may_have_all_places_and_has_turns_like_a_user() -> None:
    turns: FairTurns[int] = FairTurns(2)
    assert [enter(turns, "", ticket) for ticket in range(4)] == [True, True, False, False]
    assert not enter(turns, "alice", 10)
    assert [turns.leave(""), turns.leave(""), turns.leave("alice")] == [("alice", 10), ("", 2), ("", 3)]


@pytest.mark.parametrize("each", [1, 2])
def test_a_ticket_that_is_given_up_has_no_turn(each: int) -> None:
    turns: FairTurns[int] = FairTurns(1, each)
    assert [enter(turns, "alice", ticket) for ticket in range(3)] == [True, False, False]
    turns.give_up("alice", 1)
    turns.give_up("alice", 1)
    assert turns.leave("alice") == ("alice", 2)


@given(
    st.integers(1, 3),
    st.lists(st.tuples(st.sampled_from(["", *"abcd"]), st.sampled_from(["enter", "leave", "give up"]))),
)
def test_no_place_is_free_while_somebody_who_may_have_a_turn_waits(each: int, steps: list[tuple[str, str]]) -> None:
    turns: FairTurns[int] = FairTurns(3, each)
    running: Counter[str] = Counter()
    waiting: dict[str, deque[int]] = {user: deque() for user in ["", *"abcd"]}

    def may_have(user: str) -> bool:
        return bool(waiting[user]) and running[user] < (each if user else 3)

    for ticket, (user, step) in enumerate(steps):
        if step == "enter":
            if enter(turns, user, ticket):
                running[user] += 1
            else:
                waiting[user].append(ticket)
        elif step == "give up" and waiting[user]:
            turns.give_up(user, waiting[user].pop())
        elif running[user]:
            running[user] -= 1
            begun = turns.leave(user)
            assert (begun is None) == (not any(map(may_have, waiting)))
            if begun is not None:
                assert may_have(begun.user_id)
                assert begun.ticket == waiting[begun.user_id].popleft()
                running[begun.user_id] += 1
        assert turns.free == 3 - running.total()
        assert turns.free == 0 or not any(map(may_have, waiting))
