"""The tables of the memory store, as plain dicts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from openguild_proto.effects.attempts import LoginBlock
from openguild_proto.effects.federation import Peer, PublishedKey
from openguild_proto.effects.handovers import Move
from openguild_proto.mirror_records import GuildBan, Handover, HistoricEvent
from openguild_proto.policy.repeats import KeptAnswer
from openguild_proto.records import (
    ChannelRecord,
    ControlKind,
    ControlRecord,
    GuildRecord,
    InviteRecord,
    LogPosition,
    Mentions,
    MessageState,
    StoredEvent,
    UserRecord,
)
from openguild_proto.schemas.log_entries import Entries
from openguild_proto.schemas.log_writer import LogWriter


@dataclass(slots=True)
class Family:
    """A login on one device with its refresh tokens."""

    family_id: str
    user_id: str
    device_id: str
    device_name: str | None
    user_agent: str | None
    ip_address: str | None
    last_seen_at_ms: int
    expires_at_ms: int
    current_hash: bytes
    secret: bytes
    previous_hash: bytes | None = None
    rotated_at_ms: int | None = None
    revoked: bool = False


@dataclass(slots=True)
class Session:
    """The session of an access token."""

    session_id: str
    family_id: str
    user_id: str
    expires_at_ms: int


@dataclass(slots=True)
class Membership:
    """A role, and when it began, in UTC milliseconds."""

    role: str
    joined_at_ms: int


ABSENT = StoredEvent("", 0, "", b"", 0)
"""Placeholder for an event that only the owner of a mirrored log has."""


@dataclass(slots=True)
class Channel:
    """A channel with its log; the event with sequence n is at index n - 1."""

    record: ChannelRecord
    events: list[StoredEvent] = field(default_factory=list)
    nonces: dict[tuple[str, str], tuple[bytes, int]] = field(default_factory=dict)  # (sender, nonce): (fingerprint, n)
    roles: dict[str, Membership] = field(default_factory=dict)  # user id: explicit role
    reads: dict[str, int] = field(default_factory=dict)  # user id: last read sequence
    senders: list[str] = field(default_factory=list)  # of each event; "" if it is not a message
    messages: dict[int, MessageState] = field(default_factory=dict)  # by sequence
    mentions: dict[int, Mentions] = field(default_factory=dict)  # by sequence of the message
    edits: dict[int, list[int]] = field(default_factory=dict)  # sequence of a message: sequences of its edits
    strays: dict[str, list[int]] = field(default_factory=dict)  # event id: sequences of edits without an effect on it
    reactions: dict[tuple[int, str], dict[str, None]] = field(default_factory=dict)  # (message, emoji): user ids


@dataclass(slots=True)
class PeerGuild:
    """A guild of this server that a peer mirrors or still must purge."""

    since_ms: int
    ended_at_ms: int | None = None
    purged_at_ms: int | None = None
    last_sequence: int | None = None  # of the last event in the guild's log that the peer gets, if the mirror has ended


@dataclass(slots=True)
class KeptChain:
    """The receipt chain of a log."""

    epoch: int
    tip: tuple[int, bytes]  # (sequence, hash)
    checkpoints: dict[int, bytes]  # by sequence; the first is where it begins


@dataclass(slots=True)
class Mirror:
    """A mirrored log: the guild it belongs to, and the receipt chain at its head."""

    guild_id: str
    base: int  # events up to here are only at the owner
    chain: bytes | None = None
    receipt: bytes | None = None
    copied: int = 0  # events up to here have their history, for a takeover of the guild


@dataclass(slots=True)
class State:
    """All tables. `writer` builds the events of guilds' and users' logs."""

    writer: LogWriter
    logs: dict[str, list[StoredEvent]] = field(default_factory=dict)  # guild or user id: its log
    grown: list[StoredEvent] = field(default_factory=list)  # events of these logs that `take_grown` has not returned
    epochs: dict[str, int] = field(default_factory=dict)  # epoch of these logs, if not 1
    users: dict[str, UserRecord] = field(default_factory=dict)
    user_ids: dict[str, str] = field(default_factory=dict)  # username key: user id
    server_roles: dict[str, dict[str, int]] = field(default_factory=dict)  # user id: role: time of the grant, ms
    families: dict[str, Family] = field(default_factory=dict)
    refresh_tokens: dict[bytes, tuple[str, int]] = field(default_factory=dict)  # hash: family id, expiry, ms
    sessions: dict[str, Session] = field(default_factory=dict)
    guilds: dict[str, GuildRecord] = field(default_factory=dict)
    members: dict[str, dict[str, Membership]] = field(default_factory=dict)  # guild id: user id
    bans: dict[str, dict[str, GuildBan]] = field(default_factory=dict)  # guild id: user id
    timeouts: dict[str, dict[str, int]] = field(default_factory=dict)  # guild id, user id: end, ms
    now_ms: int = 0  # the newest time of an effect
    invites: dict[str, InviteRecord] = field(default_factory=dict)
    channels: dict[str, Channel] = field(default_factory=dict)
    event_places: dict[str, tuple[str, int]] = field(default_factory=dict)  # event id: channel id, sequence
    control: list[ControlRecord] = field(default_factory=list)  # without the pruned ones
    control_pruned: int = 0  # the number of pruned records
    control_marks: list[tuple[int, int]] = field(
        default_factory=list
    )  # (time of a retention run, ms; head at that time)
    answers: dict[str, dict[str, KeptAnswer]] = field(default_factory=dict)  # user id, key
    peers: dict[str, Peer] = field(default_factory=dict)  # by server
    peer_nonces: dict[tuple[str, str], int] = field(default_factory=dict)  # (server, nonce): until, ms
    own_keys: dict[str, PublishedKey] = field(default_factory=dict)  # by key id
    peer_guilds: dict[tuple[str, str], PeerGuild] = field(default_factory=dict)  # (peer, guild id)
    peer_cursors: dict[tuple[str, str], LogPosition] = field(default_factory=dict)  # (peer, log id): its position
    leases: dict[str, tuple[str, int]] = field(default_factory=dict)  # peer: holder, end, ms
    lease_holders: dict[str, int] = field(default_factory=dict)  # process that takes part: until, ms
    chains: dict[str, KeptChain] = field(default_factory=dict)  # log id
    mirrors: dict[str, Mirror] = field(default_factory=dict)  # log id
    pending_leaves: dict[tuple[str, str, str], int] = field(
        default_factory=dict
    )  # (origin, guild id, user id): due, ms
    ownerships: dict[str, tuple[int, int]] = field(default_factory=dict)  # guild id: (term, serial), if not (1, 0)
    bases: dict[str, int] = field(default_factory=dict)  # log id: events up to here were lost with the former owner
    handovers: dict[str, dict[int, Handover]] = field(default_factory=dict)  # guild id, term
    successions: dict[str, Handover] = field(default_factory=dict)  # guild id
    moves: dict[str, Move] = field(default_factory=dict)  # guild id
    histories: dict[str, list[HistoricEvent]] = field(default_factory=dict)  # log id: staged events, in order
    login_blocks: dict[bytes, LoginBlock] = field(default_factory=dict)  # by digest
    attempts: dict[bytes, dict[int, int]] = field(default_factory=dict)  # digest: start of bin, ms: attempts

    def append(self, entries: Entries, *, sender: str | None, now_ms: int) -> None:
        """Append to the logs of guilds and users. `sender`: the user who made the change; None: the operator."""
        for log_id, content in entries:
            events = self.logs[log_id]
            place = LogPosition(log_id, self.epochs.get(log_id, 1), len(events) + 1)
            built = self.writer.write(place, content, sender=sender, now_ms=now_ms)
            event = StoredEvent(log_id, place.sequence, built.event_id, built.wire, now_ms)
            events.append(event)
            self.grown.append(event)

    def base_of(self, log_id: str) -> int:
        """Return the sequence after which the log begins here."""
        mirror = self.mirrors.get(log_id)
        return mirror.base if mirror is not None else self.bases.get(log_id, 0)

    def has_log(self, log_id: str) -> bool:
        """Return whether a guild, a channel or a user has this id."""
        return log_id in self.logs or log_id in self.channels

    def events_of(self, log_id: str) -> list[StoredEvent] | None:
        """Return the events of the log of a channel, guild or user, or None if there is no such log."""
        channel = self.channels.get(log_id)
        return channel.events if channel is not None else self.logs.get(log_id)

    def place_of(self, log_id: str) -> LogPosition:
        """Return the newest position of the log of a guild or a user."""
        return LogPosition(log_id, self.epochs.get(log_id, 1), len(self.logs[log_id]))

    def log(
        self,
        kind: ControlKind,
        *,
        guild_id: str | None = None,
        channel_id: str | None = None,
        user_id: str | None = None,
        session_ids: Iterable[str] = (),
        body: str | None = None,
    ) -> None:
        """Append a record to the control log."""
        self.control.append(
            ControlRecord(
                sequence=self.control_head + 1,
                kind=kind,
                guild_id=guild_id,
                channel_id=channel_id,
                user_id=user_id,
                session_ids=tuple(session_ids),
                body=body,
            )
        )

    @property
    def control_head(self) -> int:
        """The sequence of the newest control record."""
        return self.control_pruned + len(self.control)

    def roles_of(self, user_id: str) -> tuple[str, ...]:
        """Return the server roles, by (granted_at, role)."""
        granted = self.server_roles.get(user_id, {})
        return tuple(sorted(granted, key=lambda role: (granted[role], role)))

    def guild_role(self, guild_id: str, user_id: str) -> str | None:
        """Return the user's role in the guild; None: not a member."""
        membership = self.members.get(guild_id, {}).get(user_id)
        return membership.role if membership is not None else None

    def timed_out_until(self, guild_id: str, user_id: str) -> int | None:
        """Return the end of the member's timeout, or None if they are not timed out."""
        ends_ms = self.timeouts.get(guild_id, {}).get(user_id, 0)
        return ends_ms if ends_ms > self.now_ms else None

    def channels_of_guild(self, guild_id: str) -> list[Channel]:
        """Return the channels of the guild, oldest first."""
        return in_order_of_creation(c for c in self.channels.values() if c.record.guild_id == guild_id)

    def channels_seen_by(self, user_id: str) -> list[Channel]:
        """Return the channels of the user's guilds and those with an explicit role, oldest first."""
        return in_order_of_creation(
            channel
            for channel in self.channels.values()
            if user_id in channel.roles or user_id in self.members.get(channel.record.guild_id, {})
        )


def in_order_of_creation(channels: Iterable[Channel]) -> list[Channel]:
    """Sort by time of creation, then by id."""
    return sorted(channels, key=lambda channel: (channel.record.created_at_ms, channel.record.channel_id))
