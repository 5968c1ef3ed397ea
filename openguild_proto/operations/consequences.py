"""What a line of the control log means for a replica: which streams end, and what is to be looked at again.

A stream is closed by what the store says now (a re-check) where the line does not settle it, so a line that comes
twice or late does no harm.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from openguild_proto.http.message import OpenStream
from openguild_proto.records import ControlKind, ControlRecord
from openguild_proto.schemas.payloads import channels_deleted
from openguild_proto.sessions.tokens import TokenAuthority
from openguild_proto.ws import reasons
from openguild_proto.ws.close_codes import CloseCode


class Consequence(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One thing to do, in the order given."""


class RevokeSession(Consequence, frozen=True):
    """Tokens of this session are worth nothing any more."""

    session_id: str


class CloseStreams(Consequence, frozen=True):
    """End every stream that `means` names; at least one member is set."""

    code: CloseCode
    reason: str
    user_id: str | None = None  # whose: the others need not be looked at
    session_ids: frozenset[str] | None = None
    guild_id: str | None = None
    channel_id: str | None = None

    def means(self, stream: OpenStream) -> bool:
        """Whether `stream` is one of those that end."""
        return (
            (self.user_id is None or stream.user_id == self.user_id)
            and (self.session_ids is None or stream.session_id in self.session_ids)
            and (self.guild_id is None or stream.guild_id == self.guild_id)
            and (self.channel_id is None or stream.channel_id == self.channel_id)
        )


class ForgetChannel(Consequence, frozen=True):
    """The channel is gone: what is kept of it goes, and nobody is notified of it any more."""

    channel_id: str


class AnnounceChannel(Consequence, frozen=True):
    """A channel is new: the members of its guild hear of it and of its messages from the first one on."""

    record: ControlRecord


class RefreshGuild(Consequence, frozen=True):
    """Read again what the users see who watch this guild."""

    guild_id: str


class RecheckUser(Consequence, frozen=True):
    """Read again what the user sees, and whether each stream of theirs may go on."""

    user_id: str


class UnknownKind(Consequence, frozen=True):
    """A kind of a newer release: nothing is done, and the operator may know."""

    kind: str


AnyConsequence: TypeAlias = (
    RevokeSession | CloseStreams | ForgetChannel | AnnounceChannel | RefreshGuild | RecheckUser | UnknownKind
)


def consequences(record: ControlRecord) -> tuple[AnyConsequence, ...]:
    """What follows from `record` on every replica."""
    match record.kind:
        case ControlKind.SESSIONS_REVOKED:
            ended = CloseStreams(
                code=CloseCode.TOKEN_ENDED,
                reason=reasons.SESSION_REVOKED,
                user_id=record.user_id,  # all of one user
                session_ids=frozenset(record.session_ids),
            )
            return (*(RevokeSession(session_id=session_id) for session_id in record.session_ids), ended)
        case ControlKind.CHANNEL_DELETED if record.channel_id is not None:
            return (
                CloseStreams(
                    code=CloseCode.CHANNEL_DELETED, reason=reasons.CHANNEL_DELETED, channel_id=record.channel_id
                ),
                ForgetChannel(channel_id=record.channel_id),
            )
        case ControlKind.GUILD_DELETED if record.guild_id is not None:
            return (
                CloseStreams(code=CloseCode.CHANNEL_DELETED, reason=reasons.GUILD_DELETED, guild_id=record.guild_id),
                # who had a role in a channel need not have been a member
                *(ForgetChannel(channel_id=channel_id) for channel_id in channels_deleted(record)),
                RefreshGuild(guild_id=record.guild_id),
            )
        case ControlKind.CHANNEL_CREATED:
            return (AnnounceChannel(record=record),)
        case kind if not kind.is_known:
            return (UnknownKind(kind=str(kind.value)),)
        case _ if record.user_id is not None:
            return (RecheckUser(user_id=record.user_id),)
    return ()


def ended_meanwhile(stream: OpenStream, tokens: TokenAuthority) -> str | None:
    """Why a stream that was being opened while something changed ends with 4401; None: its token is still good."""
    if tokens.is_revoked(stream.session_id):
        return reasons.SESSION_REVOKED
    if not tokens.trusts(stream.verified_by):
        return reasons.KEY_WITHDRAWN
    return None
