"""The keys with the highest counts are found in bounded memory."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from openguild_proto.diagnosis.heavy_hitters import HeavyHitters


def test_the_busiest_come_first() -> None:
    users = HeavyHitters()
    for user_id in ["alice", "bob", "alice", "carol", "alice", "bob"]:
        users.count(user_id, 60.0)
    assert users.busiest(2, 61.0) == [("alice", 3), ("bob", 2)]


def test_the_former_minute_fades() -> None:
    users = HeavyHitters()
    for _ in range(100):
        users.count("alice", 119.0)
    assert users.busiest(1, 119.9) == [("alice", 100)]
    assert users.busiest(1, 150.0) == [("alice", 50)]
    assert users.busiest(1, 179.9) == []
    assert users.busiest(1, 1_000.0) == []


def test_minutes_without_requests_are_not_the_former_minute() -> None:
    users = HeavyHitters()
    users.count("alice", 60.0)
    users.count("bob", 240.0)
    assert users.busiest(5, 240.0) == [("bob", 1)]


@given(st.lists(st.integers(0, 30).map(str), max_size=300), st.integers(1, 10))
def test_a_count_is_too_low_by_at_most_its_share(requests: list[str], capacity: int) -> None:
    users, true = HeavyHitters(capacity), Counter(requests)
    for user_id in requests:
        users.count(user_id, 0.0)
    found = dict(users.busiest(1_000, 0.0))
    assert len(found) <= capacity
    for user_id, count in true.items():
        assert count - len(requests) / (capacity + 1) <= found.get(user_id, 0) <= count
