"""The command `admin password` of the admin socket, with which an operator sets a user's password (PROTOCOL 4.8.8)."""

from __future__ import annotations

from openguild_proto.effects.accounts import FindUser, SetPassword
from openguild_proto.effects.base import StorageUnavailable
from openguild_proto.sessions.passwords import is_password_hash
from openguild_runtime.admin.scope import AdminScope, Refused, Request, Response, user_of

NOBODY = "user: there is no such account"


async def password(scope: AdminScope, request: Request) -> Response:
    """Set the password of a user of this server, given as its hash, and end all their sessions on every replica."""
    user_id, password_hash = user_of(request), request.get("password_hash")
    if not user_id:
        raise Refused("name the user")
    if not isinstance(password_hash, str) or not is_password_hash(password_hash):
        raise Refused("password_hash: expected what `openguild-server admin password` sends")
    now_ms = int(scope.sources.wall() * 1_000)
    try:
        user = await scope.storage.perform(FindUser(user_id=user_id))
        if user is None:
            raise Refused(NOBODY)
        if user.origin is not None:
            raise Refused(f"user: {user.username!r} belongs to {user.origin}: only that server can set their password")
        ended = await scope.storage.perform(SetPassword(user_id=user_id, password_hash=password_hash, now_ms=now_ms))
    except StorageUnavailable:
        raise Refused("the database does not respond") from None
    if ended is None:
        raise Refused(NOBODY)
    return {"user_id": user_id, "username": user.username, "devices_logged_out": ended}
