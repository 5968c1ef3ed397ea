"""Other databases under the same server_name: the operator is told once, and not of replicas that are only late."""

from __future__ import annotations

from openguild_proto.bus.other_databases import FORGET_SECS, MAX_OTHERS, SETTLE_SECS, OtherDatabases

PROBE_SECS = 3


def told(others: OtherDatabases, begin: int, end: int, database: str = "there") -> int:
    """How often, of a replica that probes from `begin` on, before `end`."""
    return sum(others.record(database, float(now)) for now in range(begin, end, PROBE_SECS))


def test_the_operator_is_told_once() -> None:
    others = OtherDatabases()
    assert told(others, 0, 3_600) == 1
    assert others.count(3_600.0) == 1


def test_replicas_that_have_not_read_a_new_id_yet_are_no_others() -> None:
    others = OtherDatabases()
    assert told(others, 0, int(SETTLE_SECS)) == 0
    assert others.count(SETTLE_SECS) == 0


def test_a_late_message_of_the_old_id_is_no_other_database() -> None:
    others = OtherDatabases()
    assert not others.record("there", 0.0)
    assert not others.record("there", FORGET_SECS)
    assert others.count(FORGET_SECS) == 0


def test_one_that_falls_silent_is_forgotten_and_told_again() -> None:
    others = OtherDatabases()
    assert told(others, 0, 60) == 1
    assert others.count(57 + FORGET_SECS - 0.1) == 1
    assert others.count(57 + FORGET_SECS) == 0
    assert told(others, 100, 160) == 1


def test_a_flood_of_ids_is_bounded() -> None:
    others = OtherDatabases()
    assert sum(told(others, 0, 30, str(number)) for number in range(MAX_OTHERS + 5)) == MAX_OTHERS
    assert others.count(27.0) == MAX_OTHERS
    assert told(others, 100, 130, "another") == 1, "there is room again"
