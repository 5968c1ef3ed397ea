"""Tasks that live beside the connections: a failure of one is logged and must not end the others."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from anyio.abc import TaskGroup

log = structlog.get_logger("openguild.background")


def start_contained(tasks: TaskGroup, function: Callable[..., Awaitable[None]], *arguments: Any) -> None:
    """Run `function(*arguments)` in `tasks`; an exception that escapes it is a defect of ours, logged with its traceback."""
    tasks.start_soon(_contain, function, arguments)


async def _contain(function: Callable[..., Awaitable[None]], arguments: tuple[Any, ...]) -> None:
    try:
        await function(*arguments)
    except Exception:
        log.exception("a background task failed", task=getattr(function, "__qualname__", repr(function)))
