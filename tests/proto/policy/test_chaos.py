"""Faults by a seed: the same again, all kinds, within their bounds."""

from __future__ import annotations

import random

from openguild_proto.policy.chaos import MAX_CALM_SECS, ChaosPlan, Fault


def plan(seed: int) -> ChaosPlan:
    return ChaosPlan(random.Random(seed).random, random.Random(-seed).random, 2)


def test_the_same_randomness_gives_the_same_faults() -> None:
    one, other = plan(1), plan(1)
    for number in range(50):
        if number % 3 == 0:  # they do not depend on each other
            assert one.next_restart() == other.next_restart()
        assert one.next_connection() == other.next_connection()
    assert [plan(1).next_connection()] != [plan(2).next_connection()]


def test_every_fault_comes_and_a_connection_may_be_whole() -> None:
    chaos = plan(3)
    fates = [chaos.next_connection() for _ in range(300)]
    assert {fate.fault for fate in fates} == set(Fault)
    assert all(10 <= fate.after_bytes < 20_000 for fate in fates)
    assert all(2 <= fate.life_secs <= MAX_CALM_SECS for fate in fates)
    assert sum(fate.fault is Fault.NONE for fate in fates) > 50


def test_every_worker_ends_in_both_ways() -> None:
    chaos = plan(4)
    ends = [chaos.next_restart() for _ in range(60)]
    assert {(end.worker, end.in_order) for end in ends} == {(0, True), (0, False), (1, True), (1, False)}
    assert all(4 <= end.after_secs <= 12 for end in ends)


def test_the_last_number_of_a_generator_is_no_fault_too_many() -> None:
    chaos = ChaosPlan(lambda: 0.999999999, lambda: 0.999999999, 2)
    assert chaos.next_connection().fault is Fault.STALL
    assert chaos.next_restart().worker == 1
