"""An asyncio loop with a simulated clock: when nothing can run, time jumps to the next timer.

It has no selector and no threads. Sockets of the simulated network report when they are readable or writable.
"""

from __future__ import annotations

from asyncio import Task, base_events
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any

import anyio
from anyio._backends._asyncio import CancelScope


class Stalled(Exception):
    """Nothing can ever run again: a deadlock."""


class _Clockwork:
    """Replaces the selector: waiting for I/O moves the clock."""

    def __init__(self) -> None:
        self.now = 0.0

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise Stalled
        self.now += timeout
        return []


class _NumberedTask(Task[Any]):
    """A task whose hash is a serial number, not its address: anyio cancels tasks and scopes in the order of a set."""

    def __init__(self, coroutine: Any, number: int, **options: Any) -> None:
        self._number = number
        super().__init__(coroutine, **options)

    def __hash__(self) -> int:
        return self._number


def _hash_of_scope(scope: CancelScope) -> int:
    host = scope._host_task
    return hash(host) if isinstance(host, _NumberedTask) else object.__hash__(scope)


CancelScope.__hash__ = _hash_of_scope  # unchanged on other loops


class SimLoop(base_events.BaseEventLoop):
    """`time()` is simulated monotonic seconds. `can_read` and `can_write` report readiness."""

    def __init__(self) -> None:
        super().__init__()
        self._selector = _Clockwork()
        self._clock_resolution = 1e-9
        self._callbacks: dict[tuple[str, int], tuple[Callable[..., None], tuple[Any, ...]]] = {}
        self.is_ready: Callable[[str, int], bool] = lambda kind, descriptor: False
        numbers = count()
        self.set_task_factory(lambda loop, coro, **options: _NumberedTask(coro, next(numbers), loop=loop, **options))

    def time(self) -> float:
        return self._selector.now

    def _process_events(self, event_list: list[Any]) -> None:
        return None

    def _write_to_self(self) -> None:
        return None

    # --- descriptors ---------------------------------------------------------------------------------

    def add_reader(self, fd: Any, callback: Callable[..., None], *args: Any) -> None:
        self._add("read", fd, callback, args)

    def add_writer(self, fd: Any, callback: Callable[..., None], *args: Any) -> None:
        self._add("write", fd, callback, args)

    def remove_reader(self, fd: Any) -> bool:
        return self._callbacks.pop(("read", _number(fd)), None) is not None

    def remove_writer(self, fd: Any) -> bool:
        return self._callbacks.pop(("write", _number(fd)), None) is not None

    def _add(self, kind: str, fd: Any, callback: Callable[..., None], args: tuple[Any, ...]) -> None:
        key = kind, _number(fd)
        self._callbacks[key] = callback, args
        if self.is_ready(*key):
            self.call_soon(self._fire, key)

    def tell(self, kind: str, descriptor: int) -> None:
        """Report that the descriptor is readable or writable now."""
        key = kind, descriptor
        if key in self._callbacks:
            self.call_soon(self._fire, key)

    def _fire(self, key: tuple[str, int]) -> None:
        """Call the callback again while the descriptor stays ready: level-triggered, like a selector."""
        entry = self._callbacks.get(key)
        if entry is None or not self.is_ready(*key):
            return
        callback, args = entry
        callback(*args)
        if self._callbacks.get(key) is entry and self.is_ready(*key):
            self.call_soon(self._fire, key)


def _number(fd: Any) -> int:
    return fd if isinstance(fd, int) else fd.fileno()


def run(main: Callable[[SimLoop], Awaitable[None]]) -> None:
    """Run a coroutine function to its end on a new simulated loop. Raises Stalled."""
    loop = SimLoop()
    anyio.run(main, loop, backend_options={"loop_factory": lambda: loop})
