"""Checks whether the author of a change may make it. The store is synchronous, so no lock is needed."""

from __future__ import annotations

from openguild_proto.errors import ErrorCode, Refusal
from openguild_proto.memory.state import Channel, State
from openguild_proto.policy.permissions import Permission, require_owned, require_role, require_session
from openguild_proto.policy.timeouts import channel_role_while_timed_out, guild_role_while_timed_out
from openguild_proto.records import Author


def require_author(state: State, author: Author) -> None:
    """Raise Refusal 401 if the account is deleted or the session has ended."""
    session = state.sessions.get(author.session_id or "")
    living = author.session_id is None or (
        session is not None and session.user_id == author.user_id and not state.families[session.family_id].revoked
    )
    require_session(living and author.user_id in state.users)


def require_in_guild(state: State, author: Author, guild_id: str, permission: Permission) -> str:
    """Return the author's effective role. Raises Refusal, with 404 for an unknown guild."""
    require_author(state, author)
    if guild_id not in state.guilds:
        raise Refusal(ErrorCode.NOT_FOUND)
    require_owned(state.guilds[guild_id].origin)
    own = guild_role_now(state, guild_id, author.user_id)
    return require_role(state.roles_of(author.user_id), (own,), permission)


def require_in_channel(state: State, author: Author, channel_id: str, permission: Permission) -> Channel:
    """Return the channel. Raises Refusal, with 404 for an unknown channel."""
    require_author(state, author)
    channel = state.channels.get(channel_id)
    if channel is None:
        raise Refusal(ErrorCode.NOT_FOUND)
    require_role(state.roles_of(author.user_id), roles_now(state, channel, author.user_id), permission)
    return channel


def effective_role_in(state: State, channel: Channel, user_id: str) -> str:
    """Return the user's effective role in the channel. Raises Refusal if they may not read it."""
    return require_role(state.roles_of(user_id), roles_now(state, channel, user_id), Permission.READ)


def may_read(state: State, channel: Channel, user_id: str) -> bool:
    """Return whether the user may read the channel."""
    try:
        effective_role_in(state, channel, user_id)
    except Refusal:
        return False
    return True


def guild_role_now(state: State, guild_id: str, user_id: str) -> str | None:
    """Return the user's role in the guild, lowered while they are timed out. None: not a member."""
    role = state.guild_role(guild_id, user_id)
    if role is None or state.timed_out_until(guild_id, user_id) is None:
        return role
    return guild_role_while_timed_out(role)


def roles_now(state: State, channel: Channel, user_id: str) -> tuple[str | None, str | None]:
    """Return the user's roles in the channel's guild and in the channel, lowered while they are timed out."""
    guild_id = channel.record.guild_id
    _, role = roles_in(state, channel, user_id)
    if role is not None and state.timed_out_until(guild_id, user_id) is not None:
        role = channel_role_while_timed_out(role)
    return guild_role_now(state, guild_id, user_id), role


def roles_in(state: State, channel: Channel, user_id: str) -> tuple[str | None, str | None]:
    """Return the user's roles in the channel's guild and in the channel; None: not a member."""
    explicit = channel.roles.get(user_id)
    return state.guild_role(channel.record.guild_id, user_id), explicit.role if explicit is not None else None
