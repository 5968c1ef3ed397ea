"""Whether the database still has the history that the channels' epochs were given for.

A standby that is promoted, a point-in-time recovery and a restored backup may lack the newest commits. Sequences that were
sent then mean other events, in every channel, also in those that nobody follows. Each such database has another lineage
(cluster and timeline), which is kept beside the lineage for which the epochs were given.
"""

from __future__ import annotations

from enum import Enum

from openguild_proto.records import History


class Verdict(Enum):
    """What a reading means to a replica."""

    SAME = "same"
    UNRECORDED = "unrecorded"  # the first look at this database: its lineage is to be recorded
    LOST = "lost"  # commits may be missing: every channel needs a new epoch
    RENEWED = "renewed"  # somebody has given new epochs since the last reading


def judge(known: History | None, found: History, *, doubted: bool = False) -> Verdict:
    """`known`: the reading that this replica works by, None at its start. `doubted`: it has seen a log go back since then."""
    if found.lineage is not None and found.recorded not in (None, found.lineage):
        return Verdict.LOST
    if known is not None:
        if found.renewals > known.renewals:
            return Verdict.RENEWED  # by somebody who saw the same; a doubt is settled with it
        if doubted or found.lacks or found.renewals < known.renewals or _is_behind(known, found):
            return Verdict.LOST
    if found.recorded is None and found.lineage is not None:
        return Verdict.UNRECORDED
    return Verdict.SAME


def _is_behind(known: History, found: History) -> bool:
    """Of a record that is not there: it was there, or another lineage was seen."""
    if found.recorded is not None:
        return False
    return known.recorded is not None or (None not in (known.lineage, found.lineage) and known.lineage != found.lineage)
