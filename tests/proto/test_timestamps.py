"""Timestamps as texts and as numbers (PROTOCOL 1.2.2)."""

from __future__ import annotations

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openguild_proto.limits import MAX_TIME_MS
from openguild_proto.timestamps import from_millis, http_date, to_millis


@pytest.mark.parametrize(
    ("text", "millis"),
    [
        ("1970-01-01", 0), ("1970-01-01T00:00:00.0001Z", 1), ("2026-11-28T12:00:00.5+01:00", 1_795_863_600_500),
        ("0001-01-01T00:00:00+23:59", 0), ("9999-12-31T23:59:59.999Z", MAX_TIME_MS),
        ("9999-12-31T23:59:59-23:59", MAX_TIME_MS), ("9999-12-31T23:59:59.9999Z", MAX_TIME_MS),
        ("2026-02-30", None), ("2026-11-28T12:00", None), ("tomorrow", None),
    ],
)  # fmt: skip
def test_every_moment_that_is_read_can_be_written(text: str, millis: int | None) -> None:
    assert to_millis(text) == millis
    if millis is not None:
        assert len(from_millis(millis)) >= len("1970-01-01T00:00:00Z")


@given(st.integers(0, MAX_TIME_MS // 1000))
def test_the_date_of_http_is_what_the_standard_library_writes(seconds: int) -> None:
    assert http_date(seconds) == formatdate(seconds, usegmt=True)
