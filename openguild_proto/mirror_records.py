"""Guilds across servers, as the core sees them: what a mirror is made of (PROTOCOL 16.5).

Ids are UUID text; a user without `origin` is of the server that says so. They are also the JSON that servers exchange: members
that are not known are ignored, so that servers of two releases understand each other.
"""

from __future__ import annotations

import msgspec

from openguild_proto.records import NOBODY, Change, LogPlace, MemberRecord, Mentions, Record


class Exchanged(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Base of what servers exchange."""


class RemoteUser(Exchanged, frozen=True):
    """A user of the server that sends this."""

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
    origin: str | None = None  # None: of the owner server
    timed_out_until_ms: int | None = None

    @classmethod
    def of(cls, record: MemberRecord) -> MirroredMember:
        """Return the member of `record` as other servers get them."""
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
    """A channel of a mirrored guild, and where its log stands. `messages`: of them in the log. `chain`: see chain.py."""

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
    """A user who may not join a guild. `username`: as of the ban; None: the owner server did not know the user."""

    user_id: str
    banned_by: str
    banned_at_ms: int
    username: str | None = None
    reason: str | None = None


class Snapshot(Exchanged, frozen=True):
    """A guild as it is at a place of its log."""

    guild_id: str
    name: str
    created_at_ms: int
    epoch: int
    sequence: int
    members: list[MirroredMember]
    channels: list[MirroredChannel]
    chain: str | None = None
    term: int = 1  # of its owner
    serial: int = 0  # of the naming of a successor (handovers.py)
    bans: list[GuildBan] = []


def place_of(snapshot: Snapshot) -> LogPlace:
    """Return the place of the guild's log at which it is as the snapshot says."""
    return LogPlace(snapshot.guild_id, snapshot.epoch, snapshot.sequence)


class MirroredEvent(Record, frozen=True):
    """An event as the owner server of its log stored it, checked. `change`, `mentions`: what it says, in a channel's log.

    `by_owner`: the owner server alone has signed it, and so it must not be of a user of this server. `of_third`: it is said to
    be of a server that is neither the owner nor this one.
    """

    sequence: int
    event_id: str
    event_type: str
    sender_id: str
    wire: bytes
    at_ms: int
    change: Change | None = None
    mentions: Mentions = NOBODY
    redacted_by: str | None = None  # its content was taken away before it came
    by_owner: bool = False
    of_third: bool = False


# --- hand-overs ------------------------------------------------------------------------------------


class Handover(Exchanged, frozen=True):
    """The word of a guild's owner that the server `to` owns it from the term `term` on (PROTOCOL 16.10).

    `kind`: "move", or "succession" for when the owner is lost. `serial`: of the naming of the successor. `signatures`: of
    `owner`, by key id, in base64url.
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


class Tenure(Record, frozen=True):
    """The owner of a guild, as a server knows it. `origin` None: this server's. `serial`: of the newest naming of a successor."""

    guild_id: str
    origin: str | None
    term: int = 1
    serial: int = 0
    has_members: bool = True  # of this server


class PassedInvite(Exchanged, frozen=True):
    """An invite of a guild that is handed over."""

    code: str
    created_by: str
    created_at_ms: int
    uses: int = 0
    max_uses: int | None = None
    expires_at_ms: int | None = None


class PassedLog(Exchanged, frozen=True):
    """Where a log of a guild ends that is handed over."""

    log_id: str
    epoch: int
    sequence: int


class HistoricEvent(Record, frozen=True):
    """An event of a log whose history is copied, checked. `nonce`, `fingerprint`: by which its repeats are known."""

    event: MirroredEvent
    nonce: str | None
    fingerprint: bytes
