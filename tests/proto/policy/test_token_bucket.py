"""A bucket admits its limit at once and refills evenly; it keeps one number for each key that is not full."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openguild_proto.policy.token_bucket import TokenBucket


def test_a_burst_is_admitted_and_comes_back_evenly() -> None:
    bucket = TokenBucket(3_000, 60)
    assert [bucket.hit("a", 0.0) for _ in range(3_000)] == [None] * 3_000
    assert bucket.hit("a", 0.0) == pytest.approx(0.02)
    assert bucket.hit("b", 0.0) is None, "each key has its own"
    assert bucket.hit("a", 0.02) is None
    assert bucket.hit("a", 0.02) == pytest.approx(0.02)
    assert [bucket.hit("a", 30.02) for _ in range(1_500)] == [None] * 1_500
    assert bucket.hit("a", 30.02) is not None


def test_several_are_admitted_together_or_not_at_all() -> None:
    bucket = TokenBucket(10, 10)
    assert bucket.hit("a", 0.0, 8) is None
    assert bucket.hit("a", 0.0, 5) == pytest.approx(3.0)
    assert bucket.hit("a", 0.0, 2) is None, "what was refused does not count"
    assert bucket.hit("a", 5.0, 5) is None
    assert bucket.hit("b", 0.0, 1_000) is None, "more than fit count as many as fit"
    assert bucket.hit("b", 0.0) == pytest.approx(1.0)


def test_other_bounds_hold_from_then_on() -> None:
    bucket = TokenBucket(2, 10)
    assert [bucket.hit("a", 0.0) for _ in range(3)] == [None, None, 5.0]
    bucket.change(4, 20)
    assert bucket.hit("a", 0.0) is None
    assert (bucket.limit, bucket.window_secs) == (4, 20)


def test_full_buckets_and_too_many_keys_are_dropped() -> None:
    bucket = TokenBucket(2, 10, max_keys=3)
    for name in "abc":
        bucket.hit(name, 0.0)
    bucket.hit("d", 1.0)
    assert len(bucket) == 3, "the key admitted longest ago makes room"
    bucket.hit("e", 100.0)
    assert len(bucket) == 1, "the others are full"


@given(st.integers(1, 20), st.lists(st.floats(0, 3), max_size=100))
def test_no_span_has_more_than_a_burst_and_what_came_back(limit: int, pauses: list[float]) -> None:
    bucket, now, admitted = TokenBucket(limit, 10), 0.0, list[float]()
    for pause in pauses:
        now += pause
        wait = bucket.hit("a", now)
        if wait is None:
            admitted.append(now)
        else:
            assert bucket.hit("a", now + wait + 1e-5) is None, "it is true about the wait"
            now += wait + 1e-5
            admitted.append(now)
    for place, start in enumerate(admitted):
        for count, end in enumerate(admitted[place:], start=1):
            assert count <= limit + (end - start) * limit / 10 + 1e-3
