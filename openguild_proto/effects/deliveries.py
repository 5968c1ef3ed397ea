"""Effects of the delivery of logs to the peers that mirror them, and of the receipts of these logs (PROTOCOL 16.8, 16.9)."""

from __future__ import annotations

from openguild_proto.effects.base import StorageEffect
from openguild_proto.records import LogPlace, Record

# --- what a peer lacks -----------------------------------------------------------------------------


class BehindLog(Record, frozen=True):
    """A log of which a peer lacks the events after `after`. `head`: the place up to which it gets it."""

    guild_id: str
    head: LogPlace
    after: int
    epoch: int  # that `after` counts in; not that of `head`: the peer has to begin anew
    ends: bool = False  # `head` is the removal of the peer's last member

    @property
    def log_id(self) -> str:
        """The log."""
        return self.head.log_id

    @property
    def is_guild(self) -> bool:
        """Whether it is the log of the guild itself."""
        return self.head.log_id == self.guild_id


class FindBehind(StorageEffect[tuple[BehindLog, ...]], frozen=True):
    """Find the logs that a peer mirrors and has not whole, at most `limit`, in one query.

    By guild, that of the guild before those of its channels; none of a guild in which the peer is denied.
    `past`: guild and log of the last one of the page before.
    `level`: also those that it has whole, of guilds of which it has members.
    """

    peer: str
    limit: int
    past: tuple[str, str] | None = None
    level: bool = False


class Woken(Record, frozen=True):
    """How some grown logs concern the peers that mirror them."""

    behind: tuple[tuple[str, BehindLog], ...]  # (peer, log) of the peers whose lease the asker holds
    mirrored: tuple[str, ...]  # of the logs asked about, those that some peer mirrors
    elsewhere: bool  # a peer mirrors one of them whose lease the asker does not hold
    free: bool = False  # nobody holds it
    ended: tuple[str, ...] = ()  # peers whose lease the asker holds, and which have to purge a deleted guild of these


class FindWoken(StorageEffect[Woken], frozen=True):
    """Find what peers lack of these logs, and of the logs of their guilds, in one query. `holder`: of leases, the asker.

    A peer lacks nothing of a guild in which it is denied.

    Of deleted guilds: who has to hear of it.
    """

    log_ids: tuple[str, ...]
    holder: str


class CursorMove(Record, frozen=True):
    """A peer has a log up to `place`."""

    peer: str
    place: LogPlace


class MoveCursors(StorageEffect[None], frozen=True):
    """Note up to where peers have logs. Of logs that they do not mirror any more nothing is noted."""

    moves: tuple[CursorMove, ...]


class MirroredLog(Record, frozen=True):
    """A log that a peer mirrors."""

    guild_id: str
    head: LogPlace


class FindMirrored(StorageEffect[MirroredLog | None], frozen=True):
    """Find the head of a log that a peer mirrors. None: it does not."""

    peer: str
    log_id: str


# --- peers -----------------------------------------------------------------------------------------


class FindMirroring(StorageEffect[tuple[str, ...]], frozen=True):
    """Find the peers that mirror a guild of this server, or still have to purge one, by name."""


class FindEnded(StorageEffect[tuple[LogPlace, ...]], frozen=True):
    """Find the guilds whose mirrors a peer has to purge, and has not said to have, by id, each with the place of the last event,
    which the peer has got. Epoch 0: the guild is deleted.
    """

    peer: str


class NotePurged(StorageEffect[None], frozen=True):
    """Note that a peer has purged its mirrors of these guilds, if they had ended at `now_ms`. Its cursors go."""

    peer: str
    guild_ids: tuple[str, ...]
    now_ms: int


class Leases(Record, frozen=True):
    """The peers of which a process may deliver now, and how many processes take part, this one included."""

    peers: tuple[str, ...]
    holders: int


class TakeLeases(StorageEffect[Leases], frozen=True):
    """Take or renew the right to deliver to `peers` until `until_ms`, and to at most `at_most` of `others` that is free.

    Until then `holder` takes part, also where it holds nothing.
    """

    peers: tuple[str, ...]
    holder: str
    now_ms: int
    until_ms: int
    others: tuple[str, ...] = ()
    at_most: int = 0

    @property
    def latest_ms(self) -> int:
        """Return until when the lease of another one may last. One beyond is from before the clock was set back, and counts for
        nothing: its process may have ended.
        """
        return 2 * self.until_ms - self.now_ms


class LeaveLeases(StorageEffect[None], frozen=True):
    """Give up rights of `holder`. `peers` None: all, and it takes part no more."""

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
    """Begin receipt chains where a log has none under its epoch. Points of another epoch than the log's change nothing."""

    points: tuple[ChainPoint, ...]


class MoveChains(StorageEffect[None], frozen=True):
    """Keep values of chains that have begun: the newest of each log (`tips`), and some on the way (`checkpoints`)."""

    tips: tuple[ChainPoint, ...]
    checkpoints: tuple[ChainPoint, ...]


class ReadEventIds(StorageEffect[tuple[str, ...]], frozen=True):
    """Read the ids of the first `limit` events of a log after the sequence `after`, in order."""

    log_id: str
    after: int
    limit: int
