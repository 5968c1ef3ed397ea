"""Effects of the delivery of logs to the peers that mirror them, and of the receipts of these logs (PROTOCOL 16.8, 16.9)."""

from __future__ import annotations

from openguild_proto.effects.base import StorageEffect
from openguild_proto.records import LogPlace, Record

# --- what a peer lacks -----------------------------------------------------------------------------


class BehindLog(Record, frozen=True):
    """A log in which a peer is missing the events after `after`. `head`: the place up to which the peer receives it."""

    guild_id: str
    head: LogPlace
    after: int
    epoch: int  # of `after`; if it differs from that of `head`, the peer must start again
    ends: bool = False  # `head` is the removal of the peer's last member

    @property
    def log_id(self) -> str:
        """The id of the log."""
        return self.head.log_id

    @property
    def is_guild(self) -> bool:
        """Whether this is the guild's own log."""
        return self.head.log_id == self.guild_id


class FindBehind(StorageEffect[tuple[BehindLog, ...]], frozen=True):
    """Find the logs that a peer mirrors and in which it is behind, at most `limit`, in one query.

    They are ordered by guild, the guild's own log before those of its channels. Guilds in which the peer is denied are left out.
    `past`: the guild and the log of the previous page's last line.
    `level`: also find up-to-date logs, of guilds in which the peer has members.
    """

    peer: str
    limit: int
    past: tuple[str, str] | None = None
    level: bool = False


class Woken(Record, frozen=True):
    """Which peers the growth of some logs concerns."""

    behind: tuple[tuple[str, BehindLog], ...]  # (peer, log), for peers whose lease `holder` holds
    mirrored: tuple[str, ...]  # those of the logs that any peer mirrors
    elsewhere: bool  # some peer mirrors one of the logs, and `holder` does not hold its lease
    free: bool = False  # no process holds the lease of such a peer
    ended: tuple[str, ...] = ()  # peers whose lease `holder` holds, and which must purge one of these guilds


class FindWoken(StorageEffect[Woken], frozen=True):
    """Find what peers are missing of these logs, and of the logs of their guilds, in one query.

    `holder`: the process that asks, by its name as a holder of leases. Guilds in which a peer is denied are left out for it. For
    deleted guilds: the peers that must purge them.
    """

    log_ids: tuple[str, ...]
    holder: str


class CursorMove(Record, frozen=True):
    """The place up to which a peer has a log."""

    peer: str
    place: LogPlace


class MoveCursors(StorageEffect[None], frozen=True):
    """Store the places up to which peers have logs. Logs that a peer no longer mirrors are ignored."""

    moves: tuple[CursorMove, ...]


class MirroredLog(Record, frozen=True):
    """A log that a peer mirrors."""

    guild_id: str
    head: LogPlace


class FindMirrored(StorageEffect[MirroredLog | None], frozen=True):
    """Find the head of a log that a peer mirrors. None: the peer does not mirror it."""

    peer: str
    log_id: str


# --- peers -----------------------------------------------------------------------------------------


class FindMirroring(StorageEffect[tuple[str, ...]], frozen=True):
    """Find the peers that mirror a guild of this server, or must still purge one, ordered by name."""


class FindEnded(StorageEffect[tuple[LogPlace, ...]], frozen=True):
    """Find the guilds whose mirrors a peer must purge and has not reported as purged, ordered by id. Each comes with the place of
    the last event that the peer received. Epoch 0: the guild is deleted.
    """

    peer: str


class NotePurged(StorageEffect[None], frozen=True):
    """Note that a peer has purged its mirrors of these guilds, if they had ended at `now_ms`, and delete its cursors."""

    peer: str
    guild_ids: tuple[str, ...]
    now_ms: int


class Leases(Record, frozen=True):
    """The peers to which a process may deliver now. `holders`: the number of processes that deliver, this one included."""

    peers: tuple[str, ...]
    holders: int


class TakeLeases(StorageEffect[Leases], frozen=True):
    """Renew the leases of `peers` until `until_ms`, and take at most `at_most` free leases of `others`.

    Until then, `holder` counts as a process that delivers, even without a lease.
    """

    peers: tuple[str, ...]
    holder: str
    now_ms: int
    until_ms: int
    others: tuple[str, ...] = ()
    at_most: int = 0

    @property
    def latest_ms(self) -> int:
        """The latest possible end of another process's lease. A lease with a later end was taken before the clock was set back. It
        is ignored, because its process may have ended.
        """
        return 2 * self.until_ms - self.now_ms


class LeaveLeases(StorageEffect[None], frozen=True):
    """Release leases of `holder`. `peers` None: all of them; the process then no longer delivers."""

    holder: str
    peers: tuple[str, ...] | None = None


# --- receipt chains --------------------------------------------------------------------------------


class ChainPoint(Record, frozen=True):
    """The value of a log's receipt chain at a place."""

    place: LogPlace
    hash: bytes


class ChainPart(Record, frozen=True):
    """A known value of a log's receipt chain, and the ids of the events after it."""

    point: ChainPoint
    event_ids: tuple[str, ...]


class ReadChains(StorageEffect[tuple[ChainPart, ...]], frozen=True):
    """Read the last known values of receipt chains at or before these places, in one query, in the order of the places.

    Each comes with the ids of at most `limit` events after it, up to the place. A log without a value there is left out.
    """

    places: tuple[LogPlace, ...]
    limit: int


class BeginChains(StorageEffect[None], frozen=True):
    """Start receipt chains for logs without one in their epoch. Points of another epoch are ignored."""

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
