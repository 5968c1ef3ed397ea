"""Faults that last until a round passes without them."""

from __future__ import annotations

from openguild_proto.policy.active_faults import ActiveFaults


def test_a_fault_is_active_until_a_round_has_passed_without_it() -> None:
    faults: ActiveFaults[str] = ActiveFaults()
    faults.report("a", "first")
    faults.report("b", "second")
    faults.begin_round()
    faults.report("b", "second")
    assert faults.end_round() == ["a"]
    assert (faults.oldest, list(faults.keys())) == ("second", ["b"])
    faults.begin_round()
    assert faults.end_round() == ["b"]
    assert faults.oldest is None


def test_a_fault_reported_between_two_rounds_is_active() -> None:
    faults: ActiveFaults[str] = ActiveFaults()
    faults.begin_round()
    assert faults.end_round() == []
    faults.report("a", "later")
    assert "a" in faults
    faults.clear()
    assert not faults.values()
