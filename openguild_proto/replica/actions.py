"""The actions that a replica asks for, as data. Carry them out in order."""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import Any, Protocol, TypeAlias

import msgspec

from openguild_proto.bus.topics import Topic
from openguild_proto.effects.base import Effect
from openguild_proto.errors import ErrorCode
from openguild_proto.fanout.hub import Subscriber
from openguild_proto.http.message import OpenStream


class StreamSocket(Protocol):
    """A replica's record of a socket that carries a stream. The replica sets both attributes."""

    stream: OpenStream | None
    subscriber: Subscriber | None


class Action(msgspec.Struct, frozen=True, gc=False):
    """Base of all actions."""


class Query(Action, frozen=True):
    """Perform `effect`, then call `Replica.answered(number, result)` or `Replica.failed(number, error)`."""

    number: int
    effect: Effect[Any]


class Publish(Action, frozen=True):
    """Publish an event that this replica stored to the other replicas. Best effort: it is also in the log."""

    channel_id: str
    payload: bytes
    request_id: str


class Broadcast(Action, frozen=True):
    """Send `payload` to every other replica. Best effort."""

    topic: Topic
    payload: bytes


class Join(Action, frozen=True):
    """Exchange messages only with replicas of this database from now on."""

    database: str


class Urgency(IntEnum):
    """When to flush a ring."""

    SOON = 0  # in the next turn of the loop
    NOW = 1  # in this turn as far as its time allows: a burst fills the ring
    COMPLETELY = 2  # without a time limit: the next event would overrun readers that keep up


class Flush(Action, frozen=True):
    """Some subscriber of `ring` has not received all frames."""

    ring: str
    urgency: Urgency = Urgency.SOON


class FlushFeed(Action, frozen=True):
    """Some gateway socket has not received all frames of the feed ring `key`."""

    key: str
    urgency: Urgency = Urgency.SOON


class Replay(Action, frozen=True):
    """Feed the socket from the log with `Replica.next_pages` until it is live.

    Also sent when a page that the socket waits for has been read, and when a waiting socket has left.
    """

    socket: Any


class Close(Action, frozen=True):
    """Close the stream with a close handshake."""

    socket: Any
    code: int
    reason: str
    missed: int | None = None  # events missed by a reader that was too slow


class ExpireAt(Action, frozen=True):
    """Close the stream at `deadline`, in monotonic seconds, when its token expires. Replaces the previous deadline."""

    socket: Any
    deadline: float
    code: int
    reason: str


class Prepared(Action, frozen=True):
    """The stream of this ticket is ready to join, or is refused."""

    ticket: int
    refusal: ErrorCode | None


class Level(Enum):
    """The level of a log line."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Log(Action, frozen=True):
    """Log a line for the operator."""

    level: Level
    message: str
    fields: dict[str, Any] = {}
    failure: Exception | None = None  # of a defect; logged with its traceback


class Pass(Action, frozen=True):
    """Do nothing. Separates the many sockets that were checked and need no action, so that the loop can end its turn here."""


PASS = Pass()

AnyAction: TypeAlias = (
    Query | Publish | Broadcast | Join | Flush | FlushFeed | Replay | Close | ExpireAt | Prepared | Log | Pass
)
