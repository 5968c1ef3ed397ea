"""The actions that the delivery to peers asks for, as data. The caller carries them out in order."""

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


class Tell(Action, frozen=True):
    """Broadcast the hint to every other replica. Best effort."""

    hint: AnyHint


class Level(Enum):
    """The level of a log line."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Log(Action, frozen=True):
    """Write a line to the log."""

    level: Level
    message: str
    fields: dict[str, Any] = {}
    failure: Exception | None = None  # an unexpected exception: the log shows its traceback


AnyAction: TypeAlias = Query | Tell | Log
