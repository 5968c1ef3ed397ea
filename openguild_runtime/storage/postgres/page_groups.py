"""Groups readers that wait for the same page of a log, each with their own rights.

A page that many request at once, such as that of a channel where everyone was mentioned, is read only a few times.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from openguild_proto.effects.channels import FindChannelAccess, PageBounds
from openguild_proto.records import ChannelAccess
from openguild_runtime.storage.postgres.access import find_accesses_and_page
from openguild_runtime.storage.postgres.read_groups import ReadGroups
from openguild_runtime.storage.postgres.values import Connection

Found: TypeAlias = ChannelAccess | None
Read: TypeAlias = Callable[[Connection, str, PageBounds, Sequence[str]], Awaitable[Sequence[Found]]]


class PageGroups:
    """Reads pages for groups of readers. `read` returns one result for each user, in order."""

    def __init__(self, groups: ReadGroups, read: Read = find_accesses_and_page) -> None:
        self._groups = groups
        self._read = read

    async def find(self, effect: FindChannelAccess, page: PageBounds) -> Found:
        """Return the access with the page. Raises StorageUnavailable, also if the caller that reads for the group is cancelled."""

        async def read(connection: Connection, user_ids: Sequence[str]) -> Sequence[Found]:
            return await self._read(connection, effect.channel_id, page, user_ids)

        return await self._groups.find((effect.channel_id, page), effect.user_id, read, effect.in_turns_of)
