"""What the operator is told of a bus: why it ended, that it does not answer, what it denies."""

from __future__ import annotations

from openguild_proto.bus.faults import Fault, Problems
from openguild_proto.bus.nats import CLOSED, SILENT, UNREACHABLE
from openguild_proto.policy.limit_sharing import SILENT_SECS

DENIED = Fault("denied", "permits no publish", "permit it")


def test_without_a_connection_the_last_end_is_told() -> None:
    problems = Problems("NATS", UNREACHABLE, SILENT)
    assert problems.now(0.0, connected=False) is UNREACHABLE
    problems.ended(CLOSED)
    problems.answered(5.0)
    problems.active.report("publish limits", DENIED)
    assert problems.now(5.0, connected=False) is CLOSED


def test_a_server_that_does_not_answer_is_silent() -> None:
    problems = Problems("NATS", UNREACHABLE, SILENT)
    assert problems.now(0.0, connected=True) is SILENT
    problems.answered(10.0)
    problems.active.report("publish limits", DENIED)
    assert problems.now(9.9 + SILENT_SECS, connected=True) is DENIED
    assert problems.now(10.0 + SILENT_SECS, connected=True) is SILENT
    problems.answered(20.0)
    problems.active.clear()
    assert problems.now(20.0, connected=True) is None


def test_a_denial_is_of_one_action_and_kind() -> None:
    problems = Problems("NATS", UNREACHABLE, SILENT)
    problems.active.report("publish limits", DENIED)
    assert problems.is_denied("publish limits")
    assert problems.is_denied("subscribe limits", "publish limits")
    assert not problems.is_denied("subscribe limits", "publish channel")
