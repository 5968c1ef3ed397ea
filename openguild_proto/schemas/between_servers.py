"""Bodies of requests and responses between servers (PROTOCOL 16.5 to 16.8).

Hashes and signatures are base64url without padding. An event is a string with its JSON, because the signature covers its bytes.
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
    RemoteUser,
    Snapshot,
    TransferredInvite,
    TransferredLog,
)
from openguild_proto.settings.sections import MAX_GUILD_BANS


class JoinRequest(Exchanged, frozen=True):
    """A user of the sender joins by an invite. `has_mirror`: the sender already mirrors the guild and needs no snapshot."""

    user: RemoteUser
    has_mirror: bool = False


class RemoteInvite(Exchanged, frozen=True):
    """An invite and its guild."""

    guild_id: str
    guild_name: str
    member_count: int
    created_by: str
    uses: int = 0
    max_uses: int | None = None
    expires_at_ms: int | None = None


class JoinAnswer(Exchanged, frozen=True):
    """The user is a member. The join is in the guild's log at or before `sequence`."""

    guild_id: str
    member: MirroredMember
    epoch: int
    sequence: int
    snapshot: Snapshot | None = None


class Proposal(Exchanged, frozen=True):
    """An event that a user of the sender proposes for a channel's log: built and signed by the sender, as clients would get it."""

    user: RemoteUser
    event: str
    nonce: str | None = None


class ProposalAnswer(Exchanged, frozen=True):
    """The owner's decision. `event`: as stored in the log, countersigned; absent if nothing needed to change."""

    event_id: str
    sequence: int | None = None
    created_at_ms: int | None = None
    event: str | None = None
    repeated: bool = False
    receipt: str | None = None
    epoch: int | None = None  # the epoch of `sequence`


class UserRequest(Exchanged, frozen=True):
    """A client's request, forwarded by the sender, about a guild that the receiver owns (PROTOCOL 16.7)."""

    user: RemoteUser
    method: str
    target: str  # path and query of a client route
    body: str | None = None
    key: str | None = None  # the Idempotency-Key


class UserAnswer(Exchanged, frozen=True):
    """The response of the receiver's route, for the user. `body` None: no body."""

    status: int
    headers: dict[str, str] = {}
    body: str | None = None


class DeliveredEvent(Exchanged, frozen=True):
    """One event of a log. Its sequence follows that of the previous one."""

    event: str
    at_ms: int  # when the owner stored it


class LogPage(Exchanged, frozen=True):
    """Events of a log from the sequence `first` on. `head`: the log's newest sequence."""

    epoch: int
    head: int
    first: int
    events: list[DeliveredEvent]


class LogDelivery(Exchanged, frozen=True):
    """Events of a log after the sequence `after`. `chain`, `receipt`: the receipt chain after the last one, and its receipt."""

    log_id: str
    guild_id: str
    epoch: int
    after: int
    events: list[DeliveredEvent]
    chain: str | None = None
    receipt: str | None = None


class EndedGuild(Exchanged, frozen=True):
    """A guild whose mirror the receiver must purge after the last event, which is at this position of the guild's log.

    `epoch` 0: the guild is deleted.
    """

    guild_id: str
    epoch: int = 0
    sequence: int = 0


class Delivery(Exchanged, frozen=True):
    """New events of logs that the receiver mirrors. `ended`: guilds whose mirrors it must purge."""

    logs: list[LogDelivery] = []
    ended: list[EndedGuild] = []


class MirrorPosition(Exchanged, frozen=True):
    """The newest position of a mirrored log. `status`: ok, unknown (not mirrored), epoch (differs), refused (see `reason`)."""

    log_id: str
    status: str
    epoch: int = 0
    sequence: int = 0
    reason: str | None = None


class DeliveryAnswer(Exchanged, frozen=True):
    """The newest positions of the mirrored logs. `purged`: guilds whose mirrors are completely removed."""

    logs: list[MirrorPosition] = []
    purged: list[str] = []


class LogProof(Exchanged, frozen=True):
    """The ids of a log's events from the sequence `first` on, and the receipt chain before and after them.

    `receipt`: the owner's signature of `chain`, the value after the last of them.
    """

    log_id: str
    epoch: int
    first: int
    events: list[str]
    before: str
    chain: str
    receipt: str | None = None


class OwnerProof(Exchanged, frozen=True):
    """The hand-overs of a guild that the sender has issued or followed, by term."""

    handovers: list[Handover] = []


class HandoverStep(Exchanged, frozen=True):
    """A request to copy more of a guild's history, up to the heads in `logs`. With `handover`: take over when it is complete."""

    handover: Handover | None = None
    logs: list[TransferredLog] = []
    invites: list[TransferredInvite] = []


class HandoverProgress(Exchanged, frozen=True):
    """`phase`: copying, whole (nothing is missing now) or owner. `missing`: events. `sequence`: copied of the guild's log."""

    phase: str
    missing: int = 0
    sequence: int = 0


class TransferredEvent(Exchanged, frozen=True):
    """An event of a log. `nonce` and `fingerprint` identify repeats of its request."""

    event: str
    at_ms: int
    nonce: str | None = None
    fingerprint: str = ""


class HistoryPage(Exchanged, frozen=True):
    """Events of a log from the sequence `first` on. `head`: the log's newest sequence."""

    epoch: int
    head: int
    first: int
    events: list[TransferredEvent] = []


def check_snapshot(snapshot: Snapshot) -> str | None:
    """Return which limit the snapshot exceeds, or None."""
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
    """Return which limit the delivery exceeds, or None."""
    if len(delivery.logs) > MAX_DELIVERED_LOGS:
        return f"more than {MAX_DELIVERED_LOGS} logs"
    if len(delivery.ended) > MAX_ENDED_GUILDS:
        return f"more than {MAX_ENDED_GUILDS} guilds that have ended"
    if sum(len(part.events) for part in delivery.logs) > MAX_DELIVERED_EVENTS:
        return f"more than {MAX_DELIVERED_EVENTS} events"
    return None
