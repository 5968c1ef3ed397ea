"""Bodies of requests between servers, and of their answers (PROTOCOL 16.5 to 16.8).

Hashes and signatures are base64url without padding. An event is text: its JSON, whose bytes are what was signed.
"""

from __future__ import annotations

from openguild_proto.limits import (
    MAX_DELIVERED_EVENTS,
    MAX_DELIVERED_LOGS,
    MAX_ENDED_GUILDS,
    MAX_MIRRORED_CHANNELS,
    MAX_MIRRORED_MEMBERS,
    MAX_MIRRORED_ROLES,
)
from openguild_proto.mirror_records import (
    Exchanged,
    Handover,
    MirroredMember,
    PassedInvite,
    PassedLog,
    RemoteUser,
    Snapshot,
)
from openguild_proto.settings.sections import MAX_GUILD_BANS


class JoinRequest(Exchanged, frozen=True):
    """A user of the sender joins by an invite. `has_mirror`: the sender mirrors the guild already and needs no snapshot."""

    user: RemoteUser
    has_mirror: bool = False


class RemoteInvite(Exchanged, frozen=True):
    """The guild of an invite."""

    guild_id: str
    guild_name: str
    member_count: int
    created_by: str
    uses: int = 0
    max_uses: int | None = None
    expires_at_ms: int | None = None


class JoinAnswer(Exchanged, frozen=True):
    """The user is a member. The join stands in the guild's log at or before `sequence`."""

    guild_id: str
    member: MirroredMember
    epoch: int
    sequence: int
    snapshot: Snapshot | None = None


class Proposal(Exchanged, frozen=True):
    """An event that a user of the sender wants in a channel's log: built and signed at home, as clients would see it."""

    user: RemoteUser
    event: str
    nonce: str | None = None


class ProposalAnswer(Exchanged, frozen=True):
    """The owner's decision. `event`: as it stands in the log, countersigned; absent where nothing needed to change."""

    event_id: str
    sequence: int | None = None
    created_at_ms: int | None = None
    event: str | None = None
    repeated: bool = False
    receipt: str | None = None
    epoch: int | None = None  # that `sequence` counts in


class UserRequest(Exchanged, frozen=True):
    """A request of a client of the sender, for a guild that the receiver owns (PROTOCOL 16.7)."""

    user: RemoteUser
    method: str
    target: str  # path and query, of the routes of clients
    body: str | None = None
    key: str | None = None  # the Idempotency-Key


class UserAnswer(Exchanged, frozen=True):
    """The answer of the receiver's route, for the user. `body` None: it has none."""

    status: int
    headers: dict[str, str] = {}
    body: str | None = None


class DeliveredEvent(Exchanged, frozen=True):
    """One event of a log; its sequence follows that of the one before."""

    event: str
    at_ms: int  # when the owner stored it


class LogPage(Exchanged, frozen=True):
    """Events of a log from the sequence `first` on. `head`: its newest sequence."""

    epoch: int
    head: int
    first: int
    events: list[DeliveredEvent]


class LogDelivery(Exchanged, frozen=True):
    """Events of a log after the sequence `after`. `chain`, `receipt`: at the last of them (chain.py)."""

    log_id: str
    guild_id: str
    epoch: int
    after: int
    events: list[DeliveredEvent]
    chain: str | None = None
    receipt: str | None = None


class EndedGuild(Exchanged, frozen=True):
    """A guild whose mirror the receiver must purge: it got the last event at this place of the guild's log.

    `epoch` 0: the guild is deleted.
    """

    guild_id: str
    epoch: int = 0
    sequence: int = 0


class Delivery(Exchanged, frozen=True):
    """New events of logs that the receiver mirrors. `ended`: guilds whose mirrors it must purge."""

    logs: list[LogDelivery] = []
    ended: list[EndedGuild] = []


class MirrorPlace(Exchanged, frozen=True):
    """The newest place of a mirrored log. `status`: ok, unknown (not mirrored), epoch (of another), refused (by `reason`)."""

    log_id: str
    status: str
    epoch: int = 0
    sequence: int = 0
    reason: str | None = None


class DeliveryAnswer(Exchanged, frozen=True):
    """The newest places of the mirrored logs. `purged`: guilds of which nothing is left."""

    logs: list[MirrorPlace] = []
    purged: list[str] = []


class LogProof(Exchanged, frozen=True):
    """The ids of a log's events from the sequence `first` on, and the receipt chain before and behind them.

    `receipt`: the owner's signature of `chain`, at the last of them.
    """

    log_id: str
    epoch: int
    first: int
    events: list[str]
    before: str
    chain: str
    receipt: str | None = None


class OwnerProof(Exchanged, frozen=True):
    """The hand-overs of a guild that the sender has made or followed, by term."""

    handovers: list[Handover] = []


class HandoverStep(Exchanged, frozen=True):
    """Copy more of a guild's history, up to where `logs` says that its logs end; with `handover` take it over when it is whole."""

    handover: Handover | None = None
    logs: list[PassedLog] = []
    invites: list[PassedInvite] = []


class HandoverProgress(Exchanged, frozen=True):
    """`phase`: copying, whole (nothing is missing for now) or owner. `missing`: events. `sequence`: of the guild's log there."""

    phase: str
    missing: int = 0
    sequence: int = 0


class PassedEvent(Exchanged, frozen=True):
    """An event of a log, with what its repeats are known by."""

    event: str
    at_ms: int
    nonce: str | None = None
    fingerprint: str = ""


class HistoryPage(Exchanged, frozen=True):
    """Events of a log from the sequence `first` on. `head`: its newest sequence."""

    epoch: int
    head: int
    first: int
    events: list[PassedEvent] = []


def check_snapshot(snapshot: Snapshot) -> str | None:
    """Return what is beyond a bound; None: nothing is."""
    if len(snapshot.members) > MAX_MIRRORED_MEMBERS:
        return f"more than {MAX_MIRRORED_MEMBERS} members"
    if len(snapshot.channels) > MAX_MIRRORED_CHANNELS:
        return f"more than {MAX_MIRRORED_CHANNELS} channels"
    if len(snapshot.bans) > MAX_GUILD_BANS:
        return f"more than {MAX_GUILD_BANS} bans"
    if sum(len(channel.roles) for channel in snapshot.channels) > MAX_MIRRORED_ROLES:
        return f"more than {MAX_MIRRORED_ROLES} roles in channels"
    return None


def check_delivery(delivery: Delivery) -> str | None:
    """Return what is beyond a bound; None: nothing is."""
    if len(delivery.logs) > MAX_DELIVERED_LOGS:
        return f"more than {MAX_DELIVERED_LOGS} logs"
    if len(delivery.ended) > MAX_ENDED_GUILDS:
        return f"more than {MAX_ENDED_GUILDS} guilds that have ended"
    if sum(len(part.events) for part in delivery.logs) > MAX_DELIVERED_EVENTS:
        return f"more than {MAX_DELIVERED_EVENTS} events"
    return None
