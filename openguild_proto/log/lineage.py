"""Decides whether the database still has the history in which the channels got their epochs.

A promoted standby, a point-in-time recovery and a restored backup may not have the newest commits. The same sequences then
mean other events, in every channel. Such a database has another lineage (cluster and timeline). The lineage of the
epochs is recorded in the database and compared with the current one.
"""

from __future__ import annotations

from enum import Enum

from openguild_proto.records import History


class Verdict(Enum):
    """The result of a read."""

    SAME = "same"
    UNRECORDED = "unrecorded"  # the first read of this database: record its lineage
    LOST = "lost"  # commits may be missing: every channel needs a new epoch
    RENEWED = "renewed"  # another replica has renewed the epochs since the last read


def judge(known: History | None, found: History, *, doubted: bool = False) -> Verdict:
    """Judge `found`. `known`: the previous read, None at the start. `doubted`: a log went back since then."""
    if found.lineage is not None and found.recorded not in (None, found.lineage):
        return Verdict.LOST
    if known is not None:
        if found.renewals > known.renewals:
            return Verdict.RENEWED  # also settles a doubt
        if doubted or found.lacks or found.renewals < known.renewals or _is_behind(known, found):
            return Verdict.LOST
    if found.recorded is None and found.lineage is not None:
        return Verdict.UNRECORDED
    return Verdict.SAME


def _is_behind(known: History, found: History) -> bool:
    """Return whether the record is missing although there was one, or the lineage has changed."""
    if found.recorded is not None:
        return False
    return known.recorded is not None or (None not in (known.lineage, found.lineage) and known.lineage != found.lineage)
