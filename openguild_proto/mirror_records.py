"""The records of mirrored guilds (PROTOCOL 16.5).

Ids are UUID text. A user without `origin` belongs to the server that sends the record. The JSON that servers exchange is made
of these Structs. Unknown members are ignored, so that servers of different releases can work together.
"""

from __future__ import annotations

import msgspec

from openguild_proto.records import NOBODY, Change, LogPosition, MemberRecord, Mentions, Record


class Exchanged(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Base of the records that servers exchange."""


class RemoteUser(Exchanged, frozen=True):
    """A user of the sending server."""

    user_id: str
    username: str
    display_name: str | None = None


class MirroredMember(Exchanged, frozen=True):
    """A member of a mirrored guild."""

    user_id: str
    username: str
    role: str
    joined_at_ms: int
    display_name: str | None = None
    origin: str | None = None  # None: belongs to the owner server
    timed_out_until_ms: int | None = None

    @classmethod
    def of(cls, record: MemberRecord) -> MirroredMember:
        """Return the member as sent to other servers."""
        return cls(
            record.user_id,
            record.username,
            record.role,
            record.joined_at_ms,
            record.display_name,
            record.origin,
            record.timed_out_until_ms,
        )


class MirroredChannel(Exchanged, frozen=True):
    """A channel of a mirrored guild and the head of its log.

    `messages`: how many of the log's events are messages. `chain`: the receipt chain at the head (log/chains.py).
    """

    channel_id: str
    name: str
    created_at_ms: int
    epoch: int
    sequence: int
    messages: int
    topic: str | None = None
    position: int = 0
    roles: dict[str, str] = {}  # by user id: explicit roles in the channel
    chain: str | None = None


class GuildBan(Exchanged, frozen=True):
    """A user who is banned from a guild. `username`: at the time of the ban; None if the owner server did not know the user."""

    user_id: str
    banned_by: str
    banned_at_ms: int
    username: str | None = None
    reason: str | None = None


class Snapshot(Exchanged, frozen=True):
    """The state of a guild at a position of its log."""

    guild_id: str
    name: str
    created_at_ms: int
    epoch: int
    sequence: int
    members: list[MirroredMember]
    channels: list[MirroredChannel]
    chain: str | None = None
    term: int = 1  # the owner's term
    serial: int = 0  # number of the newest naming of a successor (federation/handovers.py)
    bans: list[GuildBan] = []


def place_of(snapshot: Snapshot) -> LogPosition:
    """Return the position in the guild's log that the snapshot describes."""
    return LogPosition(snapshot.guild_id, snapshot.epoch, snapshot.sequence)


class MirroredEvent(Record, frozen=True):
    """A verified event of a mirrored log, as stored by its owner server.

    - `change`, `mentions`: parsed from the content, for events of a channel's log.
    - `by_owner`: only the owner server has signed it, so its sender must not be a user of this server.
    - `of_third`: it names a home server that is neither the owner nor this one.
    """

    sequence: int
    event_id: str
    event_type: str
    sender_id: str
    wire: bytes
    at_ms: int
    change: Change | None = None
    mentions: Mentions = NOBODY
    redacted_by: str | None = None  # event id, if its content was redacted before it arrived
    by_owner: bool = False
    of_third: bool = False


# --- hand-overs ------------------------------------------------------------------------------------


class Handover(Exchanged, frozen=True):
    """A signed statement of a guild's owner: the server `to` owns the guild from the term `term` on (PROTOCOL 16.10).

    - `kind`: "move", or "succession", which takes effect when the owner is lost.
    - `serial`: the number of the naming of the successor.
    - `signatures`: by `owner`, in base64url by key id.
    """

    kind: str
    guild_id: str
    owner: str
    to: str
    term: int
    issued_at_ms: int
    expires_at_ms: int
    serial: int = 0
    signatures: dict[str, str] = {}


class Ownership(Record, frozen=True):
    """The owner of a guild as this server knows it. `origin` None: this server. `serial`: of the newest naming of a successor."""

    guild_id: str
    origin: str | None
    term: int = 1
    serial: int = 0
    has_members: bool = True  # whether this server has members in the guild


class TransferredInvite(Exchanged, frozen=True):
    """An invite of a guild that is handed over."""

    code: str
    created_by: str
    created_at_ms: int
    uses: int = 0
    max_uses: int | None = None
    expires_at_ms: int | None = None


class TransferredLog(Exchanged, frozen=True):
    """The head of a log of a guild that is handed over."""

    log_id: str
    epoch: int
    sequence: int


class HistoricEvent(Record, frozen=True):
    """A verified event of a log whose history is copied. `nonce` and `fingerprint` identify repeats of its request."""

    event: MirroredEvent
    nonce: str | None
    fingerprint: bytes
