"""Which of several servers is the primary."""

from __future__ import annotations

from openguild_proto.policy.failover import PrimaryChoice


def test_the_newest_timeline_is_chosen_and_the_first_of_equals() -> None:
    assert PrimaryChoice().choose({0: 1, 1: 3, 2: 2}) == 1
    assert PrimaryChoice().choose({1: 2, 0: 2}) == 1
    assert PrimaryChoice().choose({}) is None


def test_a_former_primary_is_refused_also_when_it_is_alone() -> None:
    choice = PrimaryChoice()
    assert choice.choose({0: 1}) == 0
    assert choice.choose({0: 1, 1: 2}) == 1
    assert choice.choose({0: 1}) is None
    assert choice.choose({1: 2}) == 1
