"""The actions that a replica asks for, as data, to be carried out in order."""

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
    """A replica's record of a socket that carries a stream; both members are the replica's."""

    stream: OpenStream | None
    subscriber: Subscriber | None


class Action(msgspec.Struct, frozen=True, gc=False):
    """Base of all actions."""


class Query(Action, frozen=True):
    """Perform `effect`; answer with `Replica.answered(number, result)` or `Replica.failed(number, error)`."""

    number: int
    effect: Effect[Any]


class Publish(Action, frozen=True):
    """Tell the other replicas of an event that this one stored. Best effort: the log has it."""

    channel_id: str
    payload: bytes
    request_id: str


class Broadcast(Action, frozen=True):
    """Tell every other replica. Best effort."""

    topic: Topic
    payload: bytes


class Join(Action, frozen=True):
    """From now on what is told to other replicas, and heard of them, is of this database."""

    database: str


class Urgency(IntEnum):
    """When a ring is to be flushed."""

    SOON = 0  # at the next turn of the loop
    NOW = 1  # as far as this turn's time allows: a burst fills the ring
    COMPLETELY = 2  # whatever it takes: the next event would overrun readers who keep up


class Flush(Action, frozen=True):
    """Some subscriber of `ring` has not got what it has."""

    ring: str
    urgency: Urgency = Urgency.SOON


class FlushFeed(Action, frozen=True):
    """Some gateway socket has not got what the ring `key` of the feeds has."""

    key: str
    urgency: Urgency = Urgency.SOON


class Replay(Action, frozen=True):
    """The socket is fed from the log, by `Replica.next_pages`, until it is live.

    Also when a page that it waited for is there, or it left while it waited.
    """

    socket: Any


class Close(Action, frozen=True):
    """End the stream in order."""

    socket: Any
    code: int
    reason: str
    missed: int | None = None  # events lost by a reader that was too slow


class ExpireAt(Action, frozen=True):
    """Close the stream at `deadline` (monotonic seconds) instead of an earlier given one, when its token ends."""

    socket: Any
    deadline: float
    code: int
    reason: str


class Prepared(Action, frozen=True):
    """The stream of this ticket can be joined, or is refused."""

    ticket: int
    refusal: ErrorCode | None


class Level(Enum):
    """Of a line in the log."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Log(Action, frozen=True):
    """A line for the operator."""

    level: Level
    message: str
    fields: dict[str, Any] = {}
    failure: Exception | None = None  # a defect: the log shows its traceback


class Pass(Action, frozen=True):
    """Nothing: one of very many sockets was looked at and needs nothing. A place to stop for a turn of the loop."""


PASS = Pass()

AnyAction: TypeAlias = (
    Query | Publish | Broadcast | Join | Flush | FlushFeed | Replay | Close | ExpireAt | Prepared | Log | Pass
)
