"""Turns at few places: a user has a part of them, and nobody waits behind all requests of another."""

from __future__ import annotations

from collections import Counter, deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openguild_proto.policy.fair_turns import NOBODY, FairTurns


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


def test_nobody_may_have_all_places() -> None:
    turns: FairTurns[int] = FairTurns(2)
    assert [enter(turns, NOBODY, ticket) for ticket in range(4)] == [True, True, False, False]
    assert not enter(turns, "alice", 10)
    assert [turns.leave(NOBODY), turns.leave(NOBODY), turns.leave("alice")] == [(NOBODY, 2), ("alice", 10), (NOBODY, 3)]


def test_nobody_has_every_other_turn_however_many_users_wait() -> None:
    turns: FairTurns[int] = FairTurns(1)
    assert enter(turns, "first", 0)
    for number in range(100):
        assert not enter(turns, f"user {number}", number)
    assert [enter(turns, NOBODY, ticket) for ticket in (1_000, 1_001, 1_002)] == [False] * 3
    begun, running = [], "first"
    for _ in range(8):
        turn = turns.leave(running)
        assert turn is not None
        begun.append(turn)
        running = turn.user_id
    of_nobody, of_users = [turn for turn in begun if turn.user_id == NOBODY], [turn for turn in begun if turn.user_id]
    assert [turn.ticket for turn in of_nobody] == [1_000, 1_001, 1_002]
    assert [begun.index(turn) for turn in of_nobody] == [0, 2, 4]
    assert [turn.user_id for turn in of_users] == [f"user {number}" for number in range(5)], "and users have the others"


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
