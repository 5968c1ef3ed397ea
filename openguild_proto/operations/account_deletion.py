"""Deletes the caller's account (PROTOCOL 4.9)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from openguild_proto.effects.accounts import DeleteAccount, DescribeUser, FindUser, ListOwnedAlone
from openguild_proto.effects.base import Operation
from openguild_proto.effects.federation import PeerUnavailable
from openguild_proto.effects.guilds import FindGuildAccess, RemoveMember
from openguild_proto.effects.process import WarnOperator
from openguild_proto.errors import ErrorCode, FieldProblem, Refusal
from openguild_proto.http.message import Response
from openguild_proto.mirror_records import RemoteUser
from openguild_proto.operations.attempts import attempt_from
from openguild_proto.operations.call import Call
from openguild_proto.operations.context import Context, Limit
from openguild_proto.operations.members import require_done
from openguild_proto.operations.route import route
from openguild_proto.operations.upkeep import ask_to_let_go, leave_here, tell_left
from openguild_proto.operations.users import require_password, unknown_account
from openguild_proto.policy.account_deletion import DELETED_USERNAME, AccountDeletion
from openguild_proto.records import Author, UserRecord
from openguild_proto.schemas.accounts import PasswordConfirmation
from openguild_proto.sessions.passwords import secret_problems

ROUNDS = 3  # ours: of leaving guilds, which the user may join meanwhile
MAX_TOLD_AT_ONCE = 10  # ours: guilds whose owner servers hear at once that the user leaves, until one does not answer
MAX_NAMED = 20  # guilds in the refusal
OWNED_ALONE = "first delete the guilds that have no other owner, or give them one"


@route(
    "POST", "/users/@me/delete", "Delete your account", {204: None},
    body=PasswordConfirmation, limits=(Limit.ATTEMPTS,),
    errors=(ErrorCode.WRONG_PASSWORD, ErrorCode.LAST_OWNER, ErrorCode.GUILD_OFFLINE),
)  # fmt: skip
def delete_account(call: Call[PasswordConfirmation, None]) -> Operation[Response]:
    """Leave all guilds, then delete the account. A repeat continues where the previous attempt stopped."""
    ctx, author = call.ctx, call.claims.author
    with attempt_from(ctx, call.request.client_address):
        password = call.body.current_password.strip()
        problems = secret_problems(password, "current_password")
        if problems:
            raise Refusal(ErrorCode.VALIDATION, details=tuple(problems))
    checked_hash = yield from require_password(call, password)
    for _ in range(ROUNDS):
        left = []
        for guild_id in (yield from _guilds_of(author.user_id)):
            with _already_left():
                left.append((guild_id, (yield from _leave_or_ask(author, guild_id, ctx.wall_ms))))
        yield from _tell_owners(ctx, author.user_id, left)
        outcome = yield from DeleteAccount(author=author, checked_hash=checked_hash, now_ms=ctx.wall_ms)
        if outcome is AccountDeletion.DONE:  # an operator who restores a backup looks for these
            yield from WarnOperator("account deleted", (("user_id", author.user_id),))
            return Response.empty()
        if outcome is AccountDeletion.STALE:
            raise Refusal(ErrorCode.WRONG_PASSWORD)
    raise _joining()


def delete_by_operator(user_id: str, now_ms: int) -> Operation[UserRecord | None]:
    """Delete the account of a user of this server without their password; return its record, None: there is no such account.

    Being the only owner of another server's guild does not prevent it. Raises Refusal as `delete_account` does.
    """
    for _ in range(ROUNDS):
        user = yield from FindUser(user_id=user_id)
        if user is None or user.origin is not None:
            return None
        for guild_id in (yield from _guilds_of(user_id, keeping_mirrored=False)):
            with _already_left():
                yield from _leave(Author(user_id), guild_id, now_ms, even_last=True)
        outcome = yield from DeleteAccount(author=Author(user_id), checked_hash=user.password_hash, now_ms=now_ms)
        if outcome is AccountDeletion.DONE:
            return user
    raise _joining()


def _guilds_of(user_id: str, *, keeping_mirrored: bool = True) -> Operation[list[str]]:
    """Return the guilds of which the user is a member. Raises Refusal 409 if they are the only owner of one.

    `keeping_mirrored`: also check guilds of other servers.
    """
    alone = yield from ListOwnedAlone(user_id=user_id, limit=MAX_NAMED, with_mirrored=keeping_mirrored)
    if alone:
        details = tuple(FieldProblem(guild.guild_id, f"{guild.name} has no other owner") for guild in alone)
        raise Refusal(ErrorCode.LAST_OWNER, OWNED_ALONE, details=details)
    profile = yield from DescribeUser(user_id=user_id, limit=0)
    if profile is None:
        raise unknown_account()
    return [guild.guild_id for guild in profile.guilds]


@contextmanager
def _already_left() -> Iterator[None]:
    """Leave a guild within this context: the user may have been removed from it meanwhile."""
    try:
        yield
    except Refusal as refusal:
        if refusal.code is not ErrorCode.NOT_FOUND:
            raise


def _leave(author: Author, guild_id: str, now_ms: int, *, even_last: bool = False) -> Operation[str | None]:
    """End a membership. Return the owner server of a mirrored guild. It is only told, because its refusal could keep the account.

    `even_last`: also end the membership of the only owner of a mirrored guild.
    """
    user_id = author.user_id
    access = yield from FindGuildAccess(guild_id=guild_id, user_id=user_id)
    if access is not None and access.guild.origin is not None:
        yield from leave_here(access.guild.origin, guild_id, user_id, now_ms, even_last=even_last)
        return access.guild.origin
    require_done((yield from RemoveMember(author=author, guild_id=guild_id, user_id=user_id, now_ms=now_ms)))
    return None


def _leave_or_ask(author: Author, guild_id: str, now_ms: int) -> Operation[str | None]:
    """End a membership as `_leave` does. If a move has begun, ask the owner: a repeat then finds that the user has left."""
    try:
        return (yield from _leave(author, guild_id, now_ms))
    except Refusal as refusal:
        if refusal.code is not ErrorCode.GUILD_OFFLINE:
            raise
        access = yield from FindGuildAccess(guild_id=guild_id, user_id=author.user_id)
        owner = access.guild.origin if access is not None else None
        if owner is not None:
            with suppress(PeerUnavailable):
                yield from ask_to_let_go(owner, guild_id, RemoteUser(author.user_id, DELETED_USERNAME))
        raise


def _tell_owners(ctx: Context, user_id: str, left: list[tuple[str, str | None]]) -> Operation[None]:
    """Tell owner servers that the user has left. This is the last step: if one is too slow, a repeat has nothing left to tell."""
    mirrored = [(guild_id, owner) for guild_id, owner in left if owner is not None]
    for guild_id, owner in mirrored[:MAX_TOLD_AT_ONCE]:
        if not (yield from tell_left(ctx, owner, guild_id, RemoteUser(user_id, DELETED_USERNAME))):
            return


def _joining() -> Refusal:
    return Refusal(ErrorCode.OVERLOADED, "the account joins guilds meanwhile: try again")
