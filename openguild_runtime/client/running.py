"""Runs a client as a program: calls its handlers, saves its positions, logs interruptions, and fails with one line."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import aclosing, contextmanager, suppress
from typing import Protocol

import anyio

from openguild_proto.client import ApiError
from openguild_runtime.client.events import Connected, Event, Interrupted
from openguild_runtime.client.gateway import Gateway
from openguild_runtime.client.handlers import Handlers
from openguild_runtime.client.subscription import StreamEnded
from openguild_runtime.client.transport import OutcomeUnknown, TlsFailed

SAVE_SECS = 1.0  # how long after an event its position is saved
QUIET_SECS = 3.0  # without an answer, until the server is reported

log = logging.getLogger("openguild.client")


class Runnable(Protocol):
    """The parts of a client that `run` needs."""

    async def enter(self, username: str, password: str) -> None: ...
    async def accept_invite(self, invite: str) -> object: ...
    async def listen(self) -> None: ...
    async def aclose(self) -> None: ...


class Reporter:
    """Warns once that the server at `urls` cannot be reached. `wall()` is in UTC seconds, `retry_secs` the time of retries."""

    def __init__(self, urls: tuple[str, ...], wall: Callable[[], float], retry_secs: float) -> None:
        self._urls = ", ".join(urls)
        self._wall = wall
        self._retry_secs = retry_secs
        self._is_done = False

    def warn(self, reason: str) -> None:
        """Warn, only once."""
        if not self._is_done:
            self._is_done = True
            until = time.strftime("%H:%M:%S", time.localtime(self._wall() + self._retry_secs))
            log.warning("cannot reach %s (%s), retrying until %s", self._urls, reason, until)

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Warn also if the body takes QUIET_SECS, and never after it."""
        timer = asyncio.get_running_loop().call_later(QUIET_SECS, self.warn, "no response yet")
        try:
            yield
        finally:
            timer.cancel()
            self._is_done = True


async def dispatch(events: Gateway, handlers: Handlers, clock: Callable[[], float], save: Callable[[], None]) -> None:
    """Call the handlers for each event, and `save` SAVE_SECS after the first unsaved event."""
    save_at: float | None = None
    while True:
        event: Event | None = None
        with anyio.move_on_after(None if save_at is None else save_at - clock()):
            event = await anext(events, None)
            if event is None:
                return
        if event is not None:
            await handlers.call(event)
            events.handled()
            save_at = clock() + SAVE_SECS if save_at is None else save_at
        if save_at is not None and clock() >= save_at:
            save()
            save_at = None


def run(
    client: Runnable, handlers: Handlers, reporter: Reporter, username: str, password: str, invites: Iterable[str]
) -> None:
    """Run until Ctrl-C or SIGTERM. Raises SystemExit with one line if it cannot log in or join, or when the session has ended."""

    async def main() -> None:
        with anyio.CancelScope() as scope, _on_terminate(scope.cancel):
            async with aclosing(client):
                with reporter.starting():
                    with _ends_in_one_line(f"cannot log in as {username!r}"):
                        await client.enter(username, password)
                    for invite in invites:
                        with _ends_in_one_line(f"cannot join by the invite {invite!r}"):
                            await client.accept_invite(invite)
                _report_interruptions(handlers)
                with _ends_in_one_line("cannot continue"):
                    await client.listen()

    with suppress(KeyboardInterrupt):
        anyio.run(main)


@contextmanager
def _on_terminate(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` on SIGTERM, if it can be caught: in the main thread, not on Windows."""
    if sys.platform == "win32" or threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


@contextmanager
def _ends_in_one_line(what: str) -> Iterator[None]:
    try:
        yield
    except (ApiError, OutcomeUnknown, StreamEnded, TlsFailed) as failure:
        raise SystemExit(f"{what}: {failure}") from failure
    except OSError as failure:
        if failure.filename is None:
            raise
        raise SystemExit(f"{what}: cannot write {failure.filename} ({failure.strerror})") from failure


def _report_interruptions(handlers: Handlers) -> None:
    """Warn when the connection is lost or cannot be made, and when it is back."""
    is_lost = False

    @handlers.on(Interrupted)
    async def lost(event: Interrupted) -> None:
        nonlocal is_lost
        if not is_lost and event.retry_secs is not None:  # else it waits for a new token
            is_lost = True
            log.warning("no connection (%s), retrying until there is one", event.reason)

    @handlers.on(Connected)
    async def back(event: Connected) -> None:
        nonlocal is_lost
        if is_lost:
            is_lost = False
            log.warning("the connection is back")
