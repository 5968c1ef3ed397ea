"""Batches access checks of posts and joining streams, which turns thousands of queries of a reconnect storm into tens."""

from __future__ import annotations

from openguild_proto.effects.channels import FindChannelAccess
from openguild_proto.limits import ACCESS_CHECK_BYTES, MAX_QUEUED_ACCESS_CHECKS
from openguild_proto.policy.batches import ArrivalQueue
from openguild_proto.records import ChannelAccess
from openguild_runtime.storage.postgres.batcher import Batcher, Perform


class AccessBatcher(Batcher[FindChannelAccess, ChannelAccess | None]):
    """Batches access checks. `read(effects)` returns one result for each effect, in order."""

    def __init__(self, read: Perform[FindChannelAccess, ChannelAccess | None]) -> None:
        super().__init__(ArrivalQueue(max_items=MAX_QUEUED_ACCESS_CHECKS, item_bytes=ACCESS_CHECK_BYTES), read)
