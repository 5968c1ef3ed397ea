"""Bodies of logs: pages of one log, and news of many logs (PROTOCOL 7.9)."""

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
    """The place up to which the client has followed a log; 0: it has no event of the log."""

    log: LogName
    epoch: Epoch
    sequence: Head


class SyncRequest(Body, frozen=True):
    """The logs that the client follows, the most important first."""

    positions: Annotated[list[FollowedLog], POSITIONS]
    limit: AnyInteger | None = None


class SyncedEvent(Body, frozen=True):
    """One event of the log that the enclosing `LogNews` names."""

    sequence: Sequence
    event: Annotated[msgspec.Raw, EVENT]


class LogNews(Body, frozen=True):
    """The news of one log.

    `news`: the events follow the client's place without a gap. If they end before `head`, ask again from the last one.
    `restarted`: the place is no longer valid in this log; load the current state again. `gone`: the caller cannot read the log.
    """

    log: LogName
    status: NewsStatus
    epoch: Epoch | None = None
    head: Count | None = None
    events: list[SyncedEvent] = []


class SyncResponse(Body, frozen=True, omit_defaults=False):
    """Logs with changes, in the order of the request. `more`: the answer is not complete; ask again."""

    logs: list[LogNews]
    more: bool
