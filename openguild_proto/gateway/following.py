"""The states of a socket in a log that it follows, as data: one enum and one table (PROTOCOL 15.5).

In a state with a *slot*, the ring of the log has the socket's next event or will receive it. Otherwise the socket has a
*position* and is served with pages of the log.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import NamedTuple


class Following(IntEnum):
    """The states. `FOLLOWING` gives their meanings. The numbers are packed with a slot or a position into one integer."""

    LIVE = 0
    DUE = 1
    REPLAYING = 2
    REPLAY_PAGE = 3
    OVERRUN = 4
    LAGGING = 5
    LAGGING_PAGE = 6
    RETURNED = 7


class Step(StrEnum):
    """The inputs that change a follower's state."""

    PASSED = "passed"  # the flush skipped it, because the socket has something else to write
    LEVEL = "level"  # it has received everything in the ring
    FELL_OFF = "fell_off"  # the ring dropped its next event
    ASKED = "asked"  # a page of the log was requested
    PAGE = "page"  # the page arrived, or could not be read
    TOLD = "told"  # `lagging` or `live` was written
    REACHED = "reached"  # the ring has its next event


class FollowingRow(NamedTuple):
    """The properties of a state. `in_ring`: whether it has a slot; otherwise it has a position."""

    meaning: str
    in_ring: bool


_F, _S = Following, Step

FOLLOWING: dict[Following, FollowingRow] = {
    _F.LIVE: FollowingRow("the flush of the ring serves the log", in_ring=True),
    _F.DUE: FollowingRow("the log waits for its turn among the logs of the socket", in_ring=True),
    _F.REPLAYING: FollowingRow("the position is older than the ring, and the log waits for its turn", in_ring=False),
    _F.REPLAY_PAGE: FollowingRow("the position is older than the ring, and the server reads a page", in_ring=False),
    _F.OVERRUN: FollowingRow("the log fell off the ring, and the server has yet to send `lagging`", in_ring=False),
    _F.LAGGING: FollowingRow("the server has sent `lagging`, and the log waits for its turn", in_ring=False),
    _F.LAGGING_PAGE: FollowingRow("the server has sent `lagging`, and reads a page", in_ring=False),
    _F.RETURNED: FollowingRow("the ring has the next event again, and the server has yet to send `live`", in_ring=True),
}
"""state -> its properties."""

STEPS: dict[Following, dict[Step, Following]] = {
    _F.LIVE: {_S.PASSED: _F.DUE, _S.FELL_OFF: _F.OVERRUN},
    _F.DUE: {_S.LEVEL: _F.LIVE, _S.FELL_OFF: _F.OVERRUN},
    _F.REPLAYING: {_S.ASKED: _F.REPLAY_PAGE, _S.REACHED: _F.DUE},
    _F.REPLAY_PAGE: {_S.PAGE: _F.REPLAYING},
    _F.OVERRUN: {_S.TOLD: _F.LAGGING},
    _F.LAGGING: {_S.ASKED: _F.LAGGING_PAGE, _S.REACHED: _F.RETURNED},
    _F.LAGGING_PAGE: {_S.PAGE: _F.LAGGING},
    _F.RETURNED: {_S.TOLD: _F.DUE, _S.FELL_OFF: _F.LAGGING},
}
"""state -> step -> state.

`lagging` and `live` alternate: a socket that falls behind again before `live` was sent gets neither."""
