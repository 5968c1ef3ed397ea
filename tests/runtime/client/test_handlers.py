"""Handlers by kinds of events."""

from __future__ import annotations

from typing import Any, cast

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
