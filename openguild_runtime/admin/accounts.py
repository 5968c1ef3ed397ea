"""The command `admin delete-account` of the admin socket (PROTOCOL 4.9.6)."""

from __future__ import annotations

from openguild_proto.effects.base import StorageUnavailable
from openguild_proto.errors import Refusal
from openguild_proto.operations.account_deletion import delete_by_operator
from openguild_runtime.admin.scope import AdminScope, Refused, Request, Response, user_of
from openguild_runtime.system.operations import drive


async def delete_account(scope: AdminScope, request: Request) -> Response:
    """Delete the account of a user of this server: they leave all guilds, and their sessions end on every replica."""
    user_id = user_of(request)
    if not user_id:
        raise Refused("name the user")
    try:
        user = await drive(delete_by_operator(user_id, int(scope.sources.wall() * 1_000)), scope.storage.perform)
    except StorageUnavailable:
        raise Refused("the database does not respond: run the same command again to finish") from None
    except Refusal as refusal:
        named = "".join(f"; {problem.field}: {problem.message}" for problem in refusal.details)
        raise Refused(f"{refusal.message}{named}") from None
    if user is None:
        raise Refused("user: there is no such account of this server")
    return {"deleted": user.user_id, "username": user.username}
