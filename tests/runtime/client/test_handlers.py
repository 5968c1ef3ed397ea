"""Handlers by kinds of events."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import anyio
import pytest

from openguild_runtime.client import Event, LogFollowed, LogGone
from openguild_runtime.client.handlers import Handlers

pytestmark = pytest.mark.anyio

FOLLOWED, GONE = LogFollowed("channel:c", 1, 0, 0, True), LogGone("channel:c", "deleted")


async def test_each_gets_its_kind_in_the_order_of_registration(caplog: pytest.LogCaptureFixture) -> None:
    handlers, heard = Handlers(), list[tuple[str, Event]]()

    @handlers.on(LogGone)
    async def fails(event: LogGone) -> None:
        heard.append(("fails", event))
        raise LookupError("on purpose")

    @handlers.on(Event)
    async def everything(event: Event) -> None:
        heard.append(("everything", event))

    await handlers.call(FOLLOWED)
    await handlers.call(GONE)
    assert heard == [("everything", FOLLOWED), ("fails", GONE), ("everything", GONE)]
    assert "the handler fails failed on LogGone" in caplog.text


async def test_a_cancelled_task_of_a_handler_does_not_end_the_program(caplog: pytest.LogCaptureFixture) -> None:
    handlers, heard = Handlers(), list[Event]()

    @handlers.on(LogGone)
    async def awaits(event: LogGone) -> None:
        work = asyncio.ensure_future(anyio.sleep_forever())
        work.cancel()
        await work

    @handlers.on(LogGone)
    async def hears(event: LogGone) -> None:
        heard.append(event)

    await handlers.call(GONE)
    assert heard == [GONE]
    assert "the handler awaits awaited something that was cancelled" in caplog.text


@pytest.mark.parametrize("is_native", [True, False])
async def test_a_program_that_is_cancelled_within_a_handler_ends(is_native: bool) -> None:
    handlers, heard = Handlers(), list[Event]()

    @handlers.on(LogGone)
    async def waits(event: LogGone) -> None:
        if is_native:
            program.cancel()
        else:
            scope.cancel()
        await anyio.sleep_forever()

    @handlers.on(LogGone)
    async def hears(event: LogGone) -> None:
        heard.append(event)

    async def run() -> None:
        with scope:
            await handlers.call(GONE)

    scope = anyio.CancelScope()
    program = asyncio.ensure_future(run())
    await asyncio.wait([program])
    assert (heard, program.cancelled(), scope.cancelled_caught) == ([], is_native, not is_native)


@pytest.mark.parametrize("kind", ["message", print, int, LogGone("channel:c", "deleted")])
def test_only_kinds_of_events_can_be_handled(kind: Any) -> None:
    with pytest.raises(TypeError, match=r"is not an event class: write, for example, @client\.on\(MessagePosted\)$"):
        Handlers().on(kind)


async def test_a_handler_that_is_not_async_is_told_so(caplog: pytest.LogCaptureFixture) -> None:
    handlers = Handlers()

    def late(event: LogGone) -> None: ...

    handlers.on(LogGone)(cast(Any, late))
    await handlers.call(GONE)
    assert "the handler late is not async: write async def late" in caplog.text
