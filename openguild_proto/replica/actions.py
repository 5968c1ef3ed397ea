"""The actions of a replica, as data, to be carried out in order."""

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
    """Send the other replicas an event that this one stored. Best effort: the log has it."""

    channel_id: str
    payload: bytes
    request_id: str


class Broadcast(Action, frozen=True):
    """Send a message to every other replica. Best effort."""

    topic: Topic
    payload: bytes


class Join(Action, frozen=True):
    """From now on, exchange messages only with replicas of this database."""

    database: str


class Urgency(IntEnum):
    """When a ring is to be flushed."""

    SOON = 0  # at the next turn of the loop
    NOW = 1  # as far as this turn's time allows: a burst fills the ring
    COMPLETELY = 2  # without a time limit: the next event would overrun readers that keep up


class Flush(Action, frozen=True):
    """Flush `ring`: some subscriber is behind."""

    ring: str
    urgency: Urgency = Urgency.SOON


class FlushFeed(Action, frozen=True):
    """Flush the ring `key` of the feeds: some gateway socket is behind."""

    key: str
    urgency: Urgency = Urgency.SOON


class Replay(Action, frozen=True):
    """Feed the socket from the log, with `Replica.next_pages`, until it is live.

    Also sent when a page for which it waited has arrived, or when it left while it waited.
    """

    socket: Any


class Close(Action, frozen=True):
    """End the stream in order."""

    socket: Any
    code: int
    reason: str
    missed: int | None = None  # events lost by a reader that was too slow


class ExpireAt(Action, frozen=True):
    """Close the stream at `deadline` (monotonic seconds), when its token expires. This replaces an earlier deadline."""

    socket: Any
    deadline: float
    code: int
    reason: str


class Prepared(Action, frozen=True):
    """The stream of this ticket can be joined, or is refused."""

    ticket: int
    refusal: ErrorCode | None


class Level(Enum):
    """The level of a log line."""

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
    """Do nothing: one of very many sockets was checked and needs nothing. The loop may take a turn here."""


PASS = Pass()

AnyAction: TypeAlias = (
    Query | Publish | Broadcast | Join | Flush | FlushFeed | Replay | Close | ExpireAt | Prepared | Log | Pass
)
