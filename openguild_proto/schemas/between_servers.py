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
    """A user of the sender joins with an invite. `has_mirror`: the sender already mirrors the guild and needs no snapshot."""

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
    """The user is a member. The event of the join is in the guild's log, at or before `sequence`."""

    guild_id: str
    member: MirroredMember
    epoch: int
    sequence: int
    snapshot: Snapshot | None = None


class Proposal(Exchanged, frozen=True):
    """An event that a user of the sender wants to add to a channel's log. The sender has built and signed it, in its final form."""

    user: RemoteUser
    event: str
    nonce: str | None = None


class ProposalAnswer(Exchanged, frozen=True):
    """The owner's decision. `event`: the event in the log, countersigned; absent if nothing had to change."""

    event_id: str
    sequence: int | None = None
    created_at_ms: int | None = None
    event: str | None = None
    repeated: bool = False
    receipt: str | None = None
    epoch: int | None = None  # the epoch of `sequence`


class UserRequest(Exchanged, frozen=True):
    """A request of a client of the sender, for a guild that the receiver owns (PROTOCOL 16.7)."""

    user: RemoteUser
    method: str
    target: str  # path and query of a client's route
    body: str | None = None
    key: str | None = None  # the Idempotency-Key


class UserAnswer(Exchanged, frozen=True):
    """The answer of the receiver's route, for the user. `body` None: the answer has no body."""

    status: int
    headers: dict[str, str] = {}
    body: str | None = None


class DeliveredEvent(Exchanged, frozen=True):
    """One event of a log. Its sequence is that of the previous event plus one."""

    event: str
    at_ms: int  # when the owner stored it


class LogPage(Exchanged, frozen=True):
    """Events of a log from the sequence `first` on. `head`: its newest sequence."""

    epoch: int
    head: int
    first: int
    events: list[DeliveredEvent]


class LogDelivery(Exchanged, frozen=True):
    """Events of a log after the sequence `after`. `chain`, `receipt`: at the last of these events (chain.py)."""

    log_id: str
    guild_id: str
    epoch: int
    after: int
    events: list[DeliveredEvent]
    chain: str | None = None
    receipt: str | None = None


class EndedGuild(Exchanged, frozen=True):
    """A guild whose mirror the receiver must purge. This is the place of the last event in the guild's log that it received.

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
    """The newest place of a mirrored log. `status`: ok, unknown (not mirrored), epoch (another epoch), refused (see `reason`)."""

    log_id: str
    status: str
    epoch: int = 0
    sequence: int = 0
    reason: str | None = None


class DeliveryAnswer(Exchanged, frozen=True):
    """The newest places of the mirrored logs. `purged`: guilds that are completely purged."""

    logs: list[MirrorPlace] = []
    purged: list[str] = []


class LogProof(Exchanged, frozen=True):
    """The ids of a log's events from the sequence `first` on, and the receipt chain before and after them.

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
    """The hand-overs of a guild that the sender made, or accepted as a mirror, by term."""

    handovers: list[Handover] = []


class HandoverStep(Exchanged, frozen=True):
    """Copy more of a guild's history, up to the ends of its logs in `logs`. With `handover`, take over the guild once complete."""

    handover: Handover | None = None
    logs: list[PassedLog] = []
    invites: list[PassedInvite] = []


class HandoverProgress(Exchanged, frozen=True):
    """`phase`: copying, whole (nothing is missing) or owner. `missing`: the number of events. `sequence`: of the guild's log."""

    phase: str
    missing: int = 0
    sequence: int = 0


class PassedEvent(Exchanged, frozen=True):
    """An event of a log, with the data by which a repeat of it is recognised."""

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
