"""Reads of one statement that need only a connection, to the primary or to a standby."""

from __future__ import annotations

from typing import Any

from openguild_proto.effects import StorageEffect
from openguild_proto.effects.performs import collect
from openguild_proto.effects.search import SearchMessages
from openguild_runtime.storage.postgres import search
from openguild_runtime.storage.postgres.mode import Mode
from openguild_runtime.storage.postgres.performers import MODULES
from openguild_runtime.storage.postgres.values import Connection

READERS = collect(*MODULES)


async def read(connection: Connection, effect: StorageEffect[Any]) -> Any:
    """Perform a read for which `may_use_standby` is true, except pages, whose readers share statements (page_groups.py)."""
    match effect:
        case SearchMessages():
            return await search.search_messages(connection, effect)
    function, mode = READERS[type(effect)]
    if mode is Mode.GROUPED:
        (found,) = await function(connection, [effect])
        return found
    return await function(connection, effect)
