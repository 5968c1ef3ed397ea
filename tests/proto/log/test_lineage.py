"""What a reading of the database's history means to a replica."""

from __future__ import annotations

import pytest

from openguild_proto.log.lineage import Verdict, judge
from openguild_proto.records import History

HERE, THERE = "7:00000001", "7:00000002"
KNOWN = History(lineage=HERE, recorded=HERE, renewals=3)


@pytest.mark.parametrize(
    ("known", "found", "verdict"),
    [
        (None, KNOWN, Verdict.SAME),
        (KNOWN, KNOWN, Verdict.SAME),
        (None, History(HERE, None, 0), Verdict.UNRECORDED),
        (None, History(THERE, HERE, 3), Verdict.LOST),  # promoted while nobody watched
        (KNOWN, History(THERE, HERE, 3), Verdict.LOST),
        (KNOWN, History(THERE, THERE, 4), Verdict.RENEWED),  # another replica was first
        (KNOWN, History(HERE, HERE, 4), Verdict.RENEWED),  # an operator did it
        (KNOWN, History(HERE, None, 4), Verdict.RENEWED),
        (KNOWN, History(HERE, HERE, 2), Verdict.LOST),  # renewals went back with the rest
        (KNOWN, History(HERE, HERE, 3, lacks=True), Verdict.LOST),
        (None, History(HERE, HERE, 3, lacks=True), Verdict.SAME),
        (KNOWN, History(HERE, None, 3), Verdict.LOST),  # what was recorded is gone
        (History(HERE, None, 0), History(THERE, None, 0), Verdict.LOST),
        (History(HERE, None, 0), History(HERE, None, 0), Verdict.UNRECORDED),
        (History(None, None, 0), History(None, None, 0), Verdict.SAME),  # a database that does not say
        (History(None, None, 0), History(None, None, 1), Verdict.RENEWED),
        (KNOWN, History(None, HERE, 3), Verdict.SAME),
    ],
)
def test_what_a_reading_means(known: History | None, found: History, verdict: Verdict) -> None:
    assert judge(known, found) is verdict


def test_a_doubt_is_settled_by_new_epochs() -> None:
    assert judge(KNOWN, KNOWN, doubted=True) is Verdict.LOST
    assert judge(KNOWN, History(HERE, HERE, 4), doubted=True) is Verdict.RENEWED
