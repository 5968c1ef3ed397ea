"""Effects for delivering logs to the peers that mirror them, and for the receipts of these logs (PROTOCOL 16.8, 16.9)."""

from __future__ import annotations

from openguild_proto.effects.base import StorageEffect
from openguild_proto.records import LogPosition, Record

# --- backlogs --------------------------------------------------------------------------------------


class BehindLog(Record, frozen=True):
    """A log of which a peer lacks the events after `after`, up to the position `head`."""

    guild_id: str
    head: LogPosition
    after: int
    epoch: int  # of `after`; if it is not that of `head`, the peer must restart
    ends: bool = False  # `head` is the removal of the peer's last member

    @property
    def log_id(self) -> str:
        """The id of the log."""
        return self.head.log_id

    @property
    def is_guild(self) -> bool:
        """Whether it is the guild's own log."""
        return self.head.log_id == self.guild_id


class FindBehind(StorageEffect[tuple[BehindLog, ...]], frozen=True):
    """Find the logs that a peer mirrors and has not completely received, at most `limit`, in one query.

    Sorted by guild, the guild's log before those of its channels. Guilds in which the peer is denied are omitted.
    `past`: guild and log of the last entry of the previous page.
    `level`: include complete logs, of guilds in which the peer has members.
    """

    peer: str
    limit: int
    past: tuple[str, str] | None = None
    level: bool = False


class AffectedPeers(Record, frozen=True):
    """The peers that are affected by the growth of some logs."""

    behind: tuple[tuple[str, BehindLog], ...]  # (peer, log) for the peers whose lease the caller holds
    mirrored: tuple[str, ...]  # the given logs that some peer mirrors
    elsewhere: bool  # whether a peer mirrors one of them whose lease the caller does not hold
    free: bool = False  # whether nobody holds the lease of such a peer
    ended: tuple[str, ...] = ()  # peers that must purge a deleted guild of these, and whose lease the caller holds


class FindAffectedPeers(StorageEffect[AffectedPeers], frozen=True):
    """Find what peers lack of these logs and of the logs of their guilds, in one query. `holder`: the caller, who holds leases.

    Guilds in which a peer is denied are omitted. For deleted guilds, finds the peers that must purge them.
    """

    log_ids: tuple[str, ...]
    holder: str


class CursorMove(Record, frozen=True):
    """A peer has received a log up to `place`."""

    peer: str
    place: LogPosition


class MoveCursors(StorageEffect[None], frozen=True):
    """Store how far peers have received logs. Logs that a peer no longer mirrors are ignored."""

    moves: tuple[CursorMove, ...]


class MirroredLog(Record, frozen=True):
    """A log that a peer mirrors."""

    guild_id: str
    head: LogPosition


class FindMirrored(StorageEffect[MirroredLog | None], frozen=True):
    """Find the head of a log that a peer mirrors. None: it does not mirror the log."""

    peer: str
    log_id: str


# --- peers -----------------------------------------------------------------------------------------


class FindMirroring(StorageEffect[tuple[str, ...]], frozen=True):
    """Find the peers that mirror a guild of this server or still must purge one, by name."""


class FindEnded(StorageEffect[tuple[LogPosition, ...]], frozen=True):
    """Find the guilds whose mirrors a peer must purge and has not reported as purged, by id.

    Each has the position of the last event, which the peer has received. Epoch 0: the guild is deleted.
    """

    peer: str


class NotePurged(StorageEffect[None], frozen=True):
    """Record that a peer has purged its mirrors of these guilds, if they had ended at `now_ms`. Deletes its cursors."""

    peer: str
    guild_ids: tuple[str, ...]
    now_ms: int


class Leases(Record, frozen=True):
    """The peers to which a process may deliver now, and the number of processes that take part, including this one."""

    peers: tuple[str, ...]
    holders: int


class TakeLeases(StorageEffect[Leases], frozen=True):
    """Take or renew the leases of `peers` until `until_ms`, and take at most `at_most` free ones of `others`.

    Until then `holder` counts as taking part, even without a lease.
    """

    peers: tuple[str, ...]
    holder: str
    now_ms: int
    until_ms: int
    others: tuple[str, ...] = ()
    at_most: int = 0

    @property
    def latest_ms(self) -> int:
        """Return the latest possible end of another process's lease.

        A lease that ends later was taken before the clock was set back. It is ignored, because its process may have ended.
        """
        return 2 * self.until_ms - self.now_ms


class LeaveLeases(StorageEffect[None], frozen=True):
    """Release leases of `holder`. `peers` None: all of them, and it no longer takes part."""

    holder: str
    peers: tuple[str, ...] | None = None


# --- receipt chains --------------------------------------------------------------------------------


class ChainPoint(Record, frozen=True):
    """The value of a log's receipt chain at a position."""

    place: LogPosition
    hash: bytes


class ChainPart(Record, frozen=True):
    """A known value of a log's receipt chain, and the ids of the events after it."""

    point: ChainPoint
    event_ids: tuple[str, ...]


class ReadChains(StorageEffect[tuple[ChainPart, ...]], frozen=True):
    """Read the last known values of receipt chains at or before these positions, in one query, in the order of the positions.

    Each has the ids of at most `limit` events after it, up to the position. Logs without a value there are omitted.
    """

    places: tuple[LogPosition, ...]
    limit: int


class BeginChains(StorageEffect[None], frozen=True):
    """Start receipt chains for logs that have none in their epoch. Points of another epoch than the log's are ignored."""

    points: tuple[ChainPoint, ...]


class MoveChains(StorageEffect[None], frozen=True):
    """Store values of existing chains: the newest of each log (`tips`), and some before it (`checkpoints`)."""

    tips: tuple[ChainPoint, ...]
    checkpoints: tuple[ChainPoint, ...]


class ReadEventIds(StorageEffect[tuple[str, ...]], frozen=True):
    """Read the ids of the first `limit` events of a log after the sequence `after`, in order."""

    log_id: str
    after: int
    limit: int
