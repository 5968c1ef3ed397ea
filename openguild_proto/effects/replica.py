"""Effects of a replica: heads of logs, visible channels, control records, lineage, subscriptions."""

from __future__ import annotations

from openguild_proto.effects.base import Effect, StorageEffect
from openguild_proto.records import ControlRecord, Head, History, Record


class ReadHeads(StorageEffect[dict[str, Head]], frozen=True):
    """Read the heads of the logs of those channels that exist, by channel id, in one query."""

    divides_by = "log"

    channel_ids: tuple[str, ...]


class Visible(Record, frozen=True):
    """The sources of a user's notifications: their guilds, and the channels of these and those in which they have a role."""

    guild_ids: tuple[str, ...]
    channel_ids: tuple[str, ...]


class ReadVisible(StorageEffect[Visible], frozen=True):
    """Read the guilds and the first `max_channels` channels of the user's notification stream, in one snapshot."""

    divides_by = "user"

    user_id: str
    max_channels: int


class ReadControlHead(StorageEffect[int], frozen=True):
    """Read the sequence of the newest control record, 0 if there is none."""


class ReadControls(StorageEffect[tuple[ControlRecord, ...]], frozen=True):
    """Read the first `limit` control records after the sequence `after`, in order.

    Old records are pruned (`PruneExpired`): then the first one does not follow `after`, or none is left.
    """

    after: int
    limit: int


class ReadHistory(StorageEffect[History | None], frozen=True):
    """Read the lineage of the store. None: it cannot lose commits, or cannot report it now."""


class RecordLineage(StorageEffect[None], frozen=True):
    """Record the lineage of `found` as the one of the epochs, unless one is recorded."""

    found: History


class RenewEpochs(StorageEffect[bool], frozen=True):
    """Give every channel a new epoch, and set the count of renewals to at least `at_least`.

    False: another replica has done it since `found` was read.
    """

    found: History
    at_least: int


class FindAudience(StorageEffect[dict[str, tuple[str, ...]]], frozen=True):
    """Find the guilds of these users that have at most `max_members` members, by user id."""

    user_ids: tuple[str, ...]
    max_members: int


class SubscribeChannels(Effect[None], frozen=True):
    """Subscribe to these channels on the bus. Returns before the bus has subscribed.

    This effect and `UnsubscribeChannels` take effect in the order of the calls.
    """

    channel_ids: tuple[str, ...]


class UnsubscribeChannels(Effect[None], frozen=True):
    """Unsubscribe from these channels on the bus."""

    channel_ids: tuple[str, ...]
