"""Accounts: register, the caller's own account and profile (PROTOCOL 4.1)."""

from __future__ import annotations

from typing import Any

from openguild_proto.effects.accounts import ChangePassword, DescribeUser, FindUser, InsertUser, SetDisplayName
from openguild_proto.effects.base import Operation
from openguild_proto.effects.process import HashPassword, VerifyPassword
from openguild_proto.errors import ErrorCode, Refusal
from openguild_proto.http.message import Response
from openguild_proto.operations.attempts import attempt_from, count_attempt
from openguild_proto.operations.auth import unauthorized
from openguild_proto.operations.call import Call
from openguild_proto.operations.context import Limit, Settings
from openguild_proto.operations.epochs import LOG_PLACE, place_headers
from openguild_proto.operations.ids import new_id
from openguild_proto.operations.route import route
from openguild_proto.policy.names import check_display_name
from openguild_proto.policy.permissions import effective_role
from openguild_proto.schemas.accounts import (
    ChannelLine,
    Credentials,
    GuildLine,
    Me,
    PasswordChange,
    Profile,
    ProfileChange,
    Registered,
)
from openguild_proto.sessions.passwords import (
    normalise_username,
    password_problems,
    secret_problems,
    username_problems,
)
from openguild_proto.sessions.tokens import TokenProblem
from openguild_proto.timestamps import from_millis


def _registration_closed(settings: Settings) -> ErrorCode | None:
    return None if settings.registration.enabled else ErrorCode.REGISTRATION_CLOSED


@route(
    "POST", "/users/register", "Open an account", {201: Registered},
    auth="none", body=Credentials, limits=(Limit.ATTEMPTS,), refused_by=_registration_closed,
    errors=(ErrorCode.REGISTRATION_CLOSED, ErrorCode.USERNAME_TAKEN),
)  # fmt: skip
def register(call: Call[Credentials, None]) -> Operation[Response]:
    """Open an account; all problems of name and password are reported together."""
    ctx, address = call.ctx, call.request.client_address
    with attempt_from(ctx, address):
        username, username_key = normalise_username(call.body.username)
        password = call.body.password.strip()
        problems = (*username_problems(username), *password_problems(password))
        if problems:
            raise Refusal(ErrorCode.VALIDATION, details=problems)
    yield from count_attempt(ctx, address, username_key)
    password_hash = yield from HashPassword(password=password)
    user_id = new_id(ctx)
    stored = yield from InsertUser(
        user_id=user_id, username=username, username_key=username_key, password_hash=password_hash, now_ms=ctx.wall_ms
    )
    if not stored:
        raise Refusal(ErrorCode.USERNAME_TAKEN)
    return Response.json(Registered(user_id, username), status=201)


@route(
    "GET",
    "/users/me",
    "Show your account, roles and memberships",
    {200: Me},
    response_headers=LOG_PLACE,
    uncounted=(ErrorCode.UNAUTHORIZED,),
)
def me(call: Call[None, None]) -> Operation[Response]:
    """Show the caller's account; empty lists are omitted (PROTOCOL 4.1.4).

    A 401 is not counted as a rejection, because clients use this route to test a token (PROTOCOL 3.6.5).
    """
    profile = yield from DescribeUser(user_id=call.claims.user_id)
    if profile is None:
        raise unknown_account()
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
    body = Me(
        user_id=profile.user.user_id,
        username=profile.user.username,
        display_name=profile.user.display_name or profile.user.username,
        server_name=call.ctx.service.settings.server_name,
        created_at=from_millis(profile.user.created_at_ms),
        updated_at=from_millis(profile.user.updated_at_ms),
        roles=profile.server_roles,
        guilds=guilds,
        channels=channels,
    )
    return Response.json(body, headers=place_headers(profile.place))


@route("PATCH", "/users/@me", "Change your profile", {200: Profile}, body=ProfileChange)
def update_profile(call: Call[ProfileChange, None]) -> Operation[Response]:
    """Change the name that the caller is shown by; an empty one is none but the username."""
    name = check_display_name(call.body.display_name)
    user = yield from SetDisplayName(author=call.claims.author, display_name=name, now_ms=call.ctx.wall_ms)
    return Response.json(Profile(user.user_id, user.username, user.display_name or user.username))


@route(
    "POST", "/users/@me/password", "Change your password", {204: None},
    body=PasswordChange, limits=(Limit.ATTEMPTS,), errors=(ErrorCode.WRONG_PASSWORD,),
)  # fmt: skip
def change_password(call: Call[PasswordChange, None]) -> Operation[Response]:
    """Change the caller's password, and end their sessions on all other devices.

    A wrong current one gets 403 and not 401, which would tell the client that its token is bad (PROTOCOL 4.8.2).
    """
    ctx, author = call.ctx, call.claims.author
    with attempt_from(ctx, call.request.client_address):
        current, new = call.body.current_password.strip(), call.body.new_password.strip()
        problems = (*secret_problems(current, "current_password"), *password_problems(new, "new_password"))
        if problems:
            raise Refusal(ErrorCode.VALIDATION, details=problems)
    checked_hash = yield from require_password(call, current)
    password_hash = yield from HashPassword(password=new)
    changed = yield from ChangePassword(
        author=author, checked_hash=checked_hash, password_hash=password_hash, now_ms=ctx.wall_ms
    )
    if not changed:  # another change came first: what was verified is no longer the password
        raise Refusal(ErrorCode.WRONG_PASSWORD)
    return Response.empty()


def require_password(call: Call[Any, Any], password: str) -> Operation[str]:
    """Check the caller's password, as an attempt to log in. Return the stored hash. Raises Refusal 403."""
    user = yield from FindUser(user_id=call.claims.user_id)
    if user is None:
        raise unknown_account()
    yield from count_attempt(call.ctx, call.request.client_address, normalise_username(user.username)[1])
    if not (yield from VerifyPassword(password_hash=user.password_hash, password=password)):
        raise Refusal(ErrorCode.WRONG_PASSWORD)
    return user.password_hash


def unknown_account() -> Refusal:
    """Return the refusal 401 of a token whose account is deleted (PROTOCOL 4.1.5)."""
    return unauthorized(TokenProblem.REVOKED)
