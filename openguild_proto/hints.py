"""Hints: what replicas tell each other and may lose without harm (PROTOCOL 10.7). Nothing of them is stored."""

from __future__ import annotations

from enum import Enum
from typing import TypeAlias

import msgspec

from openguild_proto.records import ReadState


class PresenceStatus(Enum):
    """Of a user, over all their sessions: the one that comes first here and is true of some session."""

    ONLINE = "online"
    IDLE = "idle"
    OFFLINE = "offline"

    @classmethod
    def of_all(cls, statuses: list[PresenceStatus]) -> PresenceStatus:
        """Return the status of a user from those of their sessions or replicas; OFFLINE for none."""
        return next((status for status in cls if status in statuses), cls.OFFLINE)


class Hint(msgspec.Struct, frozen=True, gc=False, tag_field="type"):
    """Base of all hints."""


class ReadHint(Hint, frozen=True, tag="read"):
    """A user has moved a read position."""

    user_id: str
    state: ReadState


class TypingHint(Hint, frozen=True, tag="typing"):
    """A user writes a message. `preview`: what it will be, as far as they show it."""

    channel_id: str
    user_id: str
    preview: str | None = None


class PresenceChoice(Hint, frozen=True, tag="choice"):
    """A client says how its session's user is to appear; OFFLINE: not at all."""

    user_id: str
    session_id: str
    status: PresenceStatus


class PresenceReport(Hint, frozen=True, tag="report"):
    """Users with streams at a replica, and their statuses there. Holds for `LEASE_SECS`; OFFLINE ends it."""

    replica: str
    users: tuple[tuple[str, PresenceStatus], ...]


class ReportRequest(Hint, frozen=True, tag="request"):
    """A replica knows nobody's presence: the others report at once."""

    replica: str


class GrownHint(Hint, frozen=True, tag="grown"):
    """Logs that peers mirror have grown: the replicas that deliver to these peers continue."""

    log_ids: tuple[str, ...]


class ContactHint(Hint, frozen=True, tag="contact"):
    """A signed request of a peer has come: the replica that delivers to it need not wait any longer."""

    peer: str


AnyHint: TypeAlias = ReadHint | TypingHint | PresenceChoice | PresenceReport | ReportRequest | GrownHint | ContactHint
_decoder = msgspec.json.Decoder(AnyHint)

HINT_START = b'{"type":'
"""Tells a hint from an event in what comes for a channel."""


def encode_hint(hint: AnyHint) -> bytes:
    """Return the JSON that replicas exchange; it begins with `HINT_START`."""
    return msgspec.json.encode(hint)


def decode_hint(payload: bytes) -> AnyHint:
    """Parse a hint of another replica. Raises msgspec.DecodeError, also for a type of a later release."""
    hint: AnyHint = _decoder.decode(payload)
    return hint


PEER_HINTS = (b'{"type":"grown"', b'{"type":"contact"')
"""Tell hints on peers from those on users."""

HINT_PROBE = encode_hint(PresenceReport(replica="", users=()))
"""A hint without effect."""
