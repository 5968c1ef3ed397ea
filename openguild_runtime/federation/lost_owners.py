"""Exports as metrics which owners of mirrored guilds count as lost (PROTOCOL 16.10.7)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio

from openguild_proto.effects import Overloaded, StorageUnavailable
from openguild_proto.effects.handovers import SilentOwner
from openguild_runtime.system.background import log_exceptions

LOOK_SECS = 30.0


async def watch_lost_owners(
    look: Callable[[], Awaitable[tuple[SilentOwner, ...]]],
    tell: Callable[[tuple[SilentOwner, ...]], None],
    *,
    is_on: Callable[[], bool],
) -> None:
    """Update the metrics until cancelled. `look` may raise StorageUnavailable."""
    while True:
        with log_exceptions("looking for lost owners", StorageUnavailable, Overloaded):
            tell(await look() if is_on() else ())
        await anyio.sleep(LOOK_SECS)
