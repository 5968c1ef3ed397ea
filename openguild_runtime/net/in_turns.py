"""Work for very many sockets, a few milliseconds of each turn of the loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import anyio.lowlevel

from openguild_proto.limits import TURN_SECS

T = TypeVar("T")


async def in_turns(items: Iterable[T], action: Callable[[T], None], clock: Callable[[], float]) -> None:
    """`action(item)` for each, and return when all is done; others have their turn after every `TURN_SECS`."""
    until = clock() + TURN_SECS
    for item in items:
        action(item)
        if clock() >= until:
            await anyio.lowlevel.checkpoint()
            until = clock() + TURN_SECS
