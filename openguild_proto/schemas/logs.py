"""Bodies of logs: pages, and the news of many logs (PROTOCOL 7.9)."""

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
    """A client's position in a log; `sequence` 0: it has no events."""

    log: LogName
    epoch: Epoch
    sequence: Head


class SyncRequest(Body, frozen=True):
    """The logs that the client follows, most important first."""

    positions: Annotated[list[FollowedLog], POSITIONS]
    limit: AnyInteger | None = None


class SyncedEvent(Body, frozen=True):
    """One event of the log that the line names."""

    sequence: Sequence
    event: Annotated[msgspec.Raw, EVENT]


class LogNews(Body, frozen=True):
    """The news of one log.

    `news`: events follow the client's position without a gap. If they end before `head`, ask again from the last one.
    `restarted`: the position is no longer valid in this log; read the folded state again. `gone`: the log is not readable.
    """

    log: LogName
    status: NewsStatus
    epoch: Epoch | None = None
    head: Count | None = None
    events: list[SyncedEvent] = []


class SyncResponse(Body, frozen=True, omit_defaults=False):
    """Logs with news, in the order of the request. `more`: the response is incomplete; ask again."""

    logs: list[LogNews]
    more: bool
