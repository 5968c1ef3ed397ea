"""Room for connections within a limit of open files."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openguild_proto.limits import DESCRIPTORS_SHORT_SECS, MIN_CONNECTIONS
from openguild_proto.policy.descriptors import MACOS_OPEN_MAX, MANY_DESCRIPTORS, DescriptorBudget, limits_to_try


@pytest.mark.parametrize(
    ("soft", "hard", "tried"),
    [
        (1_024, 524_288, [524_288, MACOS_OPEN_MAX]),
        (256, None, [MANY_DESCRIPTORS, MACOS_OPEN_MAX]),
        (64, 128, [128]),
        (128, 128, []),
        (None, None, []),
    ],
)
def test_soft_limits_to_try(soft: int | None, hard: int | None, tried: list[int]) -> None:
    assert limits_to_try(soft, hard) == tried


def test_a_large_limit_leaves_what_is_configured() -> None:
    budget = DescriptorBudget(1_000_000, set_aside=50, max_streams=20_000)
    assert (budget.max_connections, budget.streams) == (30_000, 20_000)


def test_a_small_limit_keeps_a_share_from_the_streams() -> None:
    budget = DescriptorBudget(1_000, set_aside=40, max_streams=20_000)
    assert budget.max_connections == 1_000 - 40 - 120
    assert budget.streams == 840 - 105


def test_descriptors_that_ran_out_bound_the_connections_until_they_are_to_be_had_for_a_while() -> None:
    budget = DescriptorBudget(1_000, set_aside=40, max_streams=20_000)
    budget.ran_out(connections=300, now=10.0)
    assert budget.is_short(10.0)
    assert budget.max_connections == 296
    budget.opened(10.0)
    assert budget.max_connections == 296, "they ran out a moment ago"
    later = 10.0 + DESCRIPTORS_SHORT_SECS
    assert not budget.is_short(later)
    budget.opened(later)
    assert budget.max_connections == 840


def test_a_limit_that_is_changed_counts_at_once() -> None:
    budget = DescriptorBudget(1_000, set_aside=40, max_streams=20_000)
    budget.limit_changed(256)
    assert budget.max_connections == 256 - 40 - 27


@given(st.integers(0, 10_000), st.integers(0, 500), st.integers(1, 10_000), st.integers(0, 10_000))
def test_there_is_always_room_for_some_and_never_more_streams_than_connections(
    limit: int, set_aside: int, max_streams: int, connections: int
) -> None:
    budget = DescriptorBudget(limit, set_aside, max_streams)
    for _ in range(2):
        assert budget.max_connections >= min(MIN_CONNECTIONS, max_streams)
        assert 0 < budget.streams <= min(max_streams, budget.max_connections)
        budget.ran_out(connections, now=0.0)
