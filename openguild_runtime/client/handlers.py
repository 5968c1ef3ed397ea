"""The registry of a program's event handlers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from openguild_runtime.client.events import Event

E = TypeVar("E", bound=Event)
Handler = Callable[[E], Awaitable[None]]

log = logging.getLogger("openguild.client")


class Handlers:
    """Handlers by type of event. A handler for a base type such as `LogEvent` gets all of its subtypes."""

    def __init__(self) -> None:
        self._handlers: list[tuple[type[Event], Handler[Any]]] = []

    def on(self, kind: type[E]) -> Callable[[Handler[E]], Handler[E]]:
        """Return a decorator that registers a handler for `kind`. Raises TypeError if `kind` is not a subclass of Event."""
        given: object = kind
        if not (isinstance(given, type) and issubclass(given, Event)):
            raise TypeError(f"{given!r} is not an event class: write, for example, @client.on(MessagePosted)")

        def register(handler: Handler[E]) -> Handler[E]:
            self._handlers.append((kind, handler))
            return handler

        return register

    async def call(self, event: Event) -> None:
        """Call the handlers of an event, in the order of registration. Exceptions are logged, and the next handler is called.

        So is the CancelledError of a task that a handler awaits, unless the program itself is cancelled.
        """
        for kind, handler in self._handlers:
            if isinstance(event, kind):
                name = getattr(handler, "__name__", repr(handler))
                try:
                    work = handler(event)
                    if not isinstance(work, Awaitable):
                        raise TypeError(f"the handler {name} is not async: write async def {name}")
                    await work
                except asyncio.CancelledError:
                    task = asyncio.current_task()
                    if task is None or task.cancelling():
                        raise
                    log.exception("the handler %s awaited something that was cancelled, on %r", name, event)
                except Exception:
                    log.exception("the handler %s failed on %r", name, event)
