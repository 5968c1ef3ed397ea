"""The actions of the delivery to peers, as data. Carry them out in order."""

from __future__ import annotations

from enum import Enum
from typing import Any, TypeAlias

import msgspec

from openguild_proto.effects.base import Effect
from openguild_proto.hints import AnyHint


class Action(msgspec.Struct, frozen=True, gc=False):
    """Base of all actions."""


class Query(Action, frozen=True):
    """Perform `effect`, then call `Deliveries.answered(number, result)` or `Deliveries.failed(number, error)`."""

    number: int
    effect: Effect[Any]


class SendHint(Action, frozen=True):
    """Send the hint to every other replica. Best effort."""

    hint: AnyHint


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


AnyAction: TypeAlias = Query | SendHint | Log
