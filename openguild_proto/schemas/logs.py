"""Bodies of logs: their pages, and what is new in many of them (PROTOCOL 7.9)."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec

from openguild_proto.schemas.accounts import Body
from openguild_proto.schemas.fields import EVENT, POSITIONS, AnyInteger, Count, Epoch, Head, LogName, Sequence

NewsStatus: TypeAlias = Literal["news", "restarted", "gone"]


class LogLine(Body, frozen=True):
    """One event of a log."""

    log: LogName
    sequence: Sequence
    event: Annotated[msgspec.Raw, EVENT]


class FollowedLog(Body, frozen=True):
    """Up to where the client has followed a log; 0: nothing of it."""

    log: LogName
    epoch: Epoch
    sequence: Head


class SyncRequest(Body, frozen=True):
    """The logs that the client follows; what matters most to it comes first."""

    positions: Annotated[list[FollowedLog], POSITIONS]
    limit: AnyInteger | None = None


class SyncedEvent(Body, frozen=True):
    """One event of the log that the line names."""

    sequence: Sequence
    event: Annotated[msgspec.Raw, EVENT]


class LogNews(Body, frozen=True):
    """The news of one log.

    `news`: events follow the client's place without a gap; where they end before `head`, ask again from the last one.
    `restarted`: the place means nothing in this log any more; read the folded state anew. `gone`: not readable (any more).
    """

    log: LogName
    status: NewsStatus
    epoch: Epoch | None = None
    head: Count | None = None
    events: list[SyncedEvent] = []


class SyncResponse(Body, frozen=True, omit_defaults=False):
    """Logs in which anything changed, in the order asked. `more`: not all of it is here; ask again."""

    logs: list[LogNews]
    more: bool
