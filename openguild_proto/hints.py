"""Hints: messages between replicas that may be lost without harm (PROTOCOL 10.7). They are not stored."""

from __future__ import annotations

from enum import Enum
from typing import TypeAlias

import msgspec

from openguild_proto.records import ReadState


class PresenceStatus(Enum):
    """The presence of a user. A user with several sessions has the first of these that any session has."""

    ONLINE = "online"
    IDLE = "idle"
    OFFLINE = "offline"

    @classmethod
    def of_all(cls, statuses: list[PresenceStatus]) -> PresenceStatus:
        """Return a user's status from the statuses of their sessions or replicas, OFFLINE if there are none."""
        return next((status for status in cls if status in statuses), cls.OFFLINE)


class Hint(msgspec.Struct, frozen=True, gc=False, tag_field="type"):
    """Base of all hints."""


class ReadHint(Hint, frozen=True, tag="read"):
    """A user has moved a read position."""

    user_id: str
    state: ReadState


class TypingHint(Hint, frozen=True, tag="typing"):
    """A user is typing. `preview` is the text so far, if they share it."""

    channel_id: str
    user_id: str
    preview: str | None = None


class PresenceChoice(Hint, frozen=True, tag="choice"):
    """A client has set the presence of its session. OFFLINE hides the user."""

    user_id: str
    session_id: str
    status: PresenceStatus


class PresenceReport(Hint, frozen=True, tag="report"):
    """The users with streams at a replica, and their statuses there. Valid for `LEASE_SECS`; OFFLINE ends it."""

    replica: str
    users: tuple[tuple[str, PresenceStatus], ...]


class ReportRequest(Hint, frozen=True, tag="request"):
    """A replica without presence data, for example after a restart, asks the others to report at once."""

    replica: str


class GrowthHint(Hint, frozen=True, tag="grown"):
    """Logs that peers mirror have new events. The replicas that deliver to those peers continue."""

    log_ids: tuple[str, ...]


class ContactHint(Hint, frozen=True, tag="contact"):
    """A signed request from a peer has arrived. The replica that delivers to it stops backing off."""

    peer: str


AnyHint: TypeAlias = ReadHint | TypingHint | PresenceChoice | PresenceReport | ReportRequest | GrowthHint | ContactHint
_decoder = msgspec.json.Decoder(AnyHint)

HINT_START = b'{"type":'
"""Prefix that distinguishes a hint from an event on a channel's subject."""


def encode_hint(hint: AnyHint) -> bytes:
    """Return the hint as JSON. It begins with `HINT_START`."""
    return msgspec.json.encode(hint)


def decode_hint(payload: bytes) -> AnyHint:
    """Parse a hint from another replica. Raises msgspec.DecodeError, also for a type that a later release added."""
    hint: AnyHint = _decoder.decode(payload)
    return hint


PEER_HINTS = (b'{"type":"grown"', b'{"type":"contact"')
"""Prefixes of the hints about peers; all other hints are about users."""

HINT_PROBE = encode_hint(PresenceReport(replica="", users=()))
"""A hint without effect, to test the bus."""
