"""Backoff with jitter, a maximum and the advised minimum."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openguild_proto.client import Backoff, is_temporary
from openguild_proto.client.retry_advice import parse_retry_after


@given(st.floats(0, 0.999), st.floats(0, 100), st.integers(0, 40))
def test_backoff_never_undercuts_advice_and_has_a_ceiling(draw: float, advised: float, failures: int) -> None:
    backoff = Backoff(lambda: draw, base_secs=0.25, max_secs=15)
    for _ in range(failures):
        assert 0 <= backoff.next_delay() < 15
    assert advised <= backoff.next_delay(advised) <= advised + 15
    backoff.reset()
    assert backoff.next_delay() <= 0.25


@pytest.mark.parametrize(
    ("value", "secs"),
    [(None, None), ("7", 7.0), ("0", 0.0), ("-1", None), ("1.5", None), ("\u0663", None), ("100000", None),
     ("Fri, 31 Dec 1999 23:59:59 GMT", None)],
)  # fmt: skip
def test_retry_after_is_seconds(value: str | None, secs: float | None) -> None:
    assert parse_retry_after(value) == secs


def test_temporary_statuses() -> None:
    assert [status for status in (200, 400, 401, 403, 404, 408, 409, 429, 500, 501, 503, 520) if is_temporary(status)] == [
        408, 429, 500, 503, 520,
    ]  # fmt: skip
