"""Accounts: register, and who am I (PROTOCOL 4.1)."""

from __future__ import annotations

from openguild_proto.effects import DescribeUser, HashPassword, InsertUser, Operation
from openguild_proto.errors import ErrorCode, Refusal
from openguild_proto.http.message import Request, Response
from openguild_proto.operations.attempts import attempt_from, count_attempt
from openguild_proto.operations.auth import authenticate
from openguild_proto.operations.context import Context
from openguild_proto.operations.ids import new_id
from openguild_proto.policy.permissions import effective_role
from openguild_proto.schemas.accounts import ChannelLine, Credentials, GuildLine, Me, Registered
from openguild_proto.schemas.decode import decode_body, parse_query
from openguild_proto.sessions.passwords import normalise_username, password_problems, username_problems
from openguild_proto.timestamps import from_millis


def register(ctx: Context, request: Request) -> Operation[Response]:
    """POST /users/register -> 201 `{user_id, username}`."""
    parse_query(request)
    if not ctx.service.settings.registration_enabled:
        raise Refusal(ErrorCode.REGISTRATION_CLOSED)
    with attempt_from(ctx, request.client_address):
        body = decode_body(request, Credentials)
        username, username_key = normalise_username(body.username)
        password = body.password.strip()
        problems = (*username_problems(username), *password_problems(password))
        if problems:
            raise Refusal(ErrorCode.VALIDATION, details=problems)
    yield from count_attempt(ctx, request.client_address, username_key)
    password_hash = yield from HashPassword(password=password)
    user_id = new_id(ctx)
    stored = yield from InsertUser(
        user_id=user_id, username=username, username_key=username_key, password_hash=password_hash, now_ms=ctx.wall_ms
    )
    if not stored:
        raise Refusal(ErrorCode.USERNAME_TAKEN)
    return Response.json(Registered(user_id, username), status=201)


def me(ctx: Context, request: Request) -> Operation[Response]:
    """GET /users/me. A 401 is counted as a request, but as no rejection: clients ask this to see whether a token lives
    (PROTOCOL 3.6.5)."""
    try:
        return (yield from _me(ctx, request))
    except Refusal as refusal:
        if refusal.code is ErrorCode.UNAUTHORIZED:
            refusal.reason = None
        raise


def _me(ctx: Context, request: Request) -> Operation[Response]:
    """Empty lists are left out; channels are those of the caller's guilds too (PROTOCOL 4.1.4)."""
    claims = yield from authenticate(ctx, request)
    parse_query(request)
    profile = yield from DescribeUser(user_id=claims.user_id)
    if profile is None:  # the account is gone (PROTOCOL 4.1.5)
        raise Refusal(ErrorCode.UNAUTHORIZED)
    guild_roles = {guild.guild_id: guild.role for guild in profile.guilds}
    channels = tuple(
        ChannelLine(
            channel.channel_id,
            channel.guild_id,
            channel.name,
            channel.role,
            effective_role(profile.server_roles, guild_roles.get(channel.guild_id), channel.role) or channel.role,
            from_millis(channel.joined_at_ms),
        )
        for channel in profile.channels
    )
    guilds = tuple(
        GuildLine(guild.guild_id, guild.name, guild.role, from_millis(guild.joined_at_ms)) for guild in profile.guilds
    )
    return Response.json(
        Me(
            user_id=profile.user.user_id,
            username=profile.user.username,
            display_name=profile.user.username,
            server_name=ctx.service.settings.server_name,
            created_at=from_millis(profile.user.created_at_ms),
            updated_at=from_millis(profile.user.updated_at_ms),
            roles=profile.server_roles,
            guilds=guilds,
            channels=channels,
        )
    )
