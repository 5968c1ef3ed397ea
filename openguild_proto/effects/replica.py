"""What a replica asks of the store: where the logs stand, what a user sees, and which history the database has."""

from __future__ import annotations

from openguild_proto.effects.base import Effect, StorageEffect
from openguild_proto.records import ControlRecord, History, Visible


class ReadHeads(StorageEffect[dict[str, int]], frozen=True):
    """The newest sequence of each channel that exists, in one query. Result: channel id -> sequence."""

    channel_ids: tuple[str, ...]


class ReadVisible(StorageEffect[Visible], frozen=True):
    """What the user's notification stream covers, in one snapshot."""

    user_id: str


class ReadControlHead(StorageEffect[int], frozen=True):
    """The sequence of the newest control record, 0 when there is none."""


class ReadControls(StorageEffect[tuple[ControlRecord, ...]], frozen=True):
    """The first `limit` control records after sequence `after`, in order.

    Old ones may be gone (`PruneExpired`): then the first does not follow `after`, or there is none although the head is beyond it.
    """

    after: int
    limit: int


class ReadHistory(StorageEffect[History | None], frozen=True):
    """Which history the store has now. None: it cannot lose what it had, or cannot tell at the moment."""


class RecordLineage(StorageEffect[None], frozen=True):
    """Note that the channels have their epochs for the lineage of `found`, unless something has been noted."""

    found: History


class RenewEpochs(StorageEffect[bool], frozen=True):
    """Give every channel a new epoch, unless somebody has done it since `found` was read (False then).

    The count of renewals is `at_least` that afterwards.
    """

    found: History
    at_least: int


class SubscribeChannels(Effect[None], frozen=True):
    """Begin to hear these channels from the other replicas; returns before the wire knows of it.

    This and `UnsubscribeChannels` take effect in the order in which they are asked for.
    """

    channel_ids: tuple[str, ...]


class UnsubscribeChannels(Effect[None], frozen=True):
    """Stop hearing these channels."""

    channel_ids: tuple[str, ...]
