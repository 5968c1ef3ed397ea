"""Slots for what is under way with other servers at the same time."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from openguild_proto.policy.response_times import MAX_REMEMBERED, SLOW_SECS, SLOW_TIMES, ResponseTimes
from openguild_proto.policy.server_slots import ServerSlots


def prompt(*servers: str) -> ResponseTimes:
    response_times = ResponseTimes()
    for server in servers:
        response_times.note(server, 0.1, 0.0, answered=True)
    return response_times


def slots(of_server: int, in_all: int, *servers: str) -> ServerSlots[str]:
    """Those of `servers` are prompt."""
    return ServerSlots(of_server, in_all, prompt(*servers))


def test_a_server_has_few_slots_and_leaves_others_theirs() -> None:
    found = slots(2, 4, "a", "b", "c")
    with ExitStack() as taken:
        assert [taken.enter_context(found.slot("a", 0.0)) for _ in range(3)] == [True, True, False]
        assert [taken.enter_context(found.slot("b", 0.0)) for _ in range(2)] == [True, False], "half of what is free"
        assert taken.enter_context(found.slot("c", 0.0))
        assert not taken.enter_context(found.slot("d", 0.0))
    with found.slot("b", 0.0) as is_free:
        assert is_free


def test_a_slot_is_given_back_when_its_work_fails() -> None:
    found = slots(1, 1, "a")
    with pytest.raises(ValueError, match="it fails"), found.slot("a", 0.0):
        raise ValueError("it fails")
    with found.slot("a", 0.0) as is_free:
        assert is_free


def test_slow_servers_and_strangers_share_a_half() -> None:
    found = slots(1, 8, "prompt")
    assert [found.take(f"stranger {number}", 0.0) for number in range(5)] == [True, True, True, True, False]
    assert found.take("prompt", 0.0)


def test_a_slot_goes_to_one_that_may_have_it_in_turns() -> None:
    found = slots(1, 2, "a", "b")
    assert found.take("stranger", 0.0)
    assert found.take("a", 0.0)
    for server, ticket in (("other", "s1"), ("a", "a1"), ("a", "a2"), ("b", "b1")):
        assert not found.take(server, 0.0)
        found.wait(server, ticket)
    assert found.leave("a", 0.0) == ["a1"]
    assert found.leave("a", 0.0) == ["b1"], "the servers have turns"
    found.give_up("a", "a2")
    assert found.leave("b", 0.0) == []
    assert found.leave("stranger", 0.0) == ["s1"]


class _Counting(ResponseTimes):
    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def is_fast(self, server: str, now: float) -> bool:
        self.asked += 1
        return super().is_fast(server, now)


def test_a_slot_is_passed_on_in_one_look_at_those_who_wait() -> None:
    """Thousands of servers may wait, and every request ends with this."""
    response_times = _Counting()
    found: ServerSlots[int] = ServerSlots(1, 8, response_times)
    assert [found.take(f"stranger {number}", 0.0) for number in range(5)] == [True, True, True, True, False]
    for ticket in range(1_000):
        found.wait(f"waiting {ticket}", ticket)
    response_times.asked = 0
    assert found.leave("stranger 0", 0.0) == [0]
    assert response_times.asked < 1_100


def test_a_server_is_slow_for_many_times_as_long_as_it_took() -> None:
    response_times = prompt("a")
    response_times.note("a", SLOW_SECS + 1, 10.0, answered=False)
    response_times.note("a", 0.1, 11.0, answered=True)
    assert not response_times.is_fast("a", 9.9 + SLOW_TIMES * (SLOW_SECS + 1))
    assert response_times.is_fast("a", 10.1 + SLOW_TIMES * (SLOW_SECS + 1))


def test_no_answer_makes_no_server_prompt() -> None:
    response_times = ResponseTimes()
    response_times.note("a", 0.1, 0.0, answered=False)
    assert not response_times.is_fast("a", 1.0)


def test_a_bounded_number_of_servers_is_remembered() -> None:
    response_times = prompt("first", *map(str, range(MAX_REMEMBERED)))
    assert not response_times.is_fast("first", 1.0)
    assert response_times.is_fast("0", 1.0)
