"""The consequences of a control record for a replica: streams to close, and state to read again.

If a record does not determine whether a stream ends, the store is queried (a re-check), so late and repeated records are
harmless.
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
    """Base of the consequences. Apply them in order."""


class RevokeSession(Consequence, frozen=True):
    """Reject tokens of this session from now on."""

    session_id: str


class CloseStreams(Consequence, frozen=True):
    """Close every stream that `matches`; at least one criterion is set."""

    code: CloseCode
    reason: str
    user_id: str | None = None  # limits the search to this user
    session_ids: frozenset[str] | None = None
    guild_id: str | None = None
    channel_id: str | None = None

    def matches(self, stream: OpenStream) -> bool:
        """Return whether to close `stream`."""
        return (
            (self.user_id is None or stream.user_id == self.user_id)
            and (self.session_ids is None or stream.session_id in self.session_ids)
            and (self.guild_id is None or stream.guild_id == self.guild_id)
            and (self.channel_id is None or stream.channel_id == self.channel_id)
        )


class ForgetChannels(Consequence, frozen=True):
    """Drop the state of deleted channels."""

    channel_ids: tuple[str, ...]


class AnnounceChannel(Consequence, frozen=True):
    """Notify the members of the guild of a new channel, and follow it from its first message."""

    record: ControlRecord


class RefreshGuild(Consequence, frozen=True):
    """Read again the visible channels of users in this guild who have a notification stream."""

    guild_id: str


class RecheckUser(Consequence, frozen=True):
    """Read the user's visible channels again, and check each of their streams."""

    user_id: str


class RestartLogs(Consequence, frozen=True):
    """Restart following the logs that have a new epoch."""


class UnknownKind(Consequence, frozen=True):
    """Ignore a kind that a later release added, and log it."""

    kind: str


AnyConsequence: TypeAlias = (
    RevokeSession
    | CloseStreams
    | ForgetChannels
    | AnnounceChannel
    | RefreshGuild
    | RecheckUser
    | RestartLogs
    | UnknownKind
)


def consequences(record: ControlRecord) -> tuple[AnyConsequence, ...]:
    """Return the consequences of `record` for every replica."""
    match record.kind:
        case ControlKind.SESSIONS_REVOKED:
            ended = CloseStreams(
                code=CloseCode.TOKEN_ENDED,
                reason=reasons.SESSION_REVOKED,
                user_id=record.user_id,  # they belong to one user
                session_ids=frozenset(record.session_ids),
            )
            return (*(RevokeSession(session_id=session_id) for session_id in record.session_ids), ended)
        case ControlKind.CHANNEL_DELETED if record.channel_id is not None:
            return (
                CloseStreams(
                    code=CloseCode.CHANNEL_DELETED, reason=reasons.CHANNEL_DELETED, channel_id=record.channel_id
                ),
                ForgetChannels(channel_ids=(record.channel_id,)),
            )
        case ControlKind.GUILD_DELETED if record.guild_id is not None:
            return (
                CloseStreams(code=CloseCode.CHANNEL_DELETED, reason=reasons.GUILD_DELETED, guild_id=record.guild_id),
                # users with a role in a channel need not be members of the guild
                ForgetChannels(channel_ids=tuple(channels_deleted(record))),
                RefreshGuild(guild_id=record.guild_id),
            )
        case ControlKind.LOGS_RENEWED if record.guild_id is not None:
            return (RestartLogs(), RefreshGuild(guild_id=record.guild_id))
        case ControlKind.CHANNEL_CREATED:
            return (AnnounceChannel(record=record),)
        case kind if not kind.is_known:
            return (UnknownKind(kind=str(kind.value)),)
        case _ if record.user_id is not None:
            return (RecheckUser(user_id=record.user_id),)
    return ()


def ended_meanwhile(stream: OpenStream, tokens: TokenAuthority) -> str | None:
    """Return why a stream opened during a change closes with 4401, or None if its token is still valid."""
    if tokens.is_revoked(stream.session_id):
        return reasons.SESSION_REVOKED
    if not tokens.trusts(stream.verified_by):
        return reasons.KEY_WITHDRAWN
    return None
