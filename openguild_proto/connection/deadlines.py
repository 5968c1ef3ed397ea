"""The names of the deadlines of a connection.

Their lengths are configured (`http.*` and `websocket.*` in settings/sections.py) or fixed (`Limits` in limits.py).
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from operator import attrgetter

from openguild_proto.limits import Limits


class Deadline(StrEnum):
    """The deadlines of a connection. Each comment says what must have happened by then."""

    HEAD = "head"  # a request's head has arrived (RFC 9112 9.5)
    BODY = "body"  # a request's body has arrived
    IDLE = "idle"  # the next request has begun to arrive
    WRITE = "write"  # the peer has taken some of the queued bytes
    PING = "ping"  # the next ping is due, an interval after the last whole frame
    FRAME = "frame"  # a frame that has begun is complete; no pong can be sent inside it (RFC 6455 5.4)
    CLOSE = "close"  # the peer has answered our close frame (RFC 6455 7.1.1)
    LIFETIME = "lifetime"  # the credentials of the connection expire
    LINGER = "linger"  # the peer has shut down its side after ours (RFC 9112 9.6)


SECS: dict[Deadline, Callable[[Limits], float]] = {
    Deadline.HEAD: attrgetter("head_timeout_secs"),
    Deadline.BODY: attrgetter("body_timeout_secs"),
    Deadline.IDLE: attrgetter("idle_timeout_secs"),
    Deadline.PING: attrgetter("ping_interval_secs"),
    Deadline.CLOSE: attrgetter("close_timeout_secs"),
    Deadline.LINGER: attrgetter("linger_timeout_secs"),
}
"""The durations of the deadlines that a phase sets, from the connection's limits."""
