"""The comparison of the instruction budget (`make budget`)."""

from __future__ import annotations

from benchmarks.budget.__main__ import compared


def test_only_what_costs_more_than_five_percent_is_over() -> None:
    lines, over = compared(
        {"post": 104.0, "page": 106.0, "version": 90.0, "new": 1.0}, {"post": 100.0, "page": 100.0, "version": 100.0}
    )
    assert over == ["page", "new"]
    assert [line.split()[-1] for line in lines[1:]] == ["+4.0%", "OVER", "it", "OVER"]
