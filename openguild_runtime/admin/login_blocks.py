"""The commands `admin block|unblock|blocks` of the admin socket, which refuse logins for a while (PROTOCOL 9.4.6)."""

from __future__ import annotations

from openguild_proto.effects.accounts import FindUserByName
from openguild_proto.effects.attempts import BlockLogins, ListLoginBlocks, LoginBlock, UnblockLogins
from openguild_proto.effects.base import StorageUnavailable
from openguild_proto.limits import MAX_LOGIN_BLOCK_SECS, MAX_LOGIN_BLOCKS, MAX_NAME_CHARS
from openguild_proto.operations.attempts import ACCOUNT, block_account, block_address
from openguild_proto.timestamps import from_millis
from openguild_runtime.admin.scope import AdminScope, Refused, Request, Response

NO_DATABASE = "the database does not respond"


def _named(request: Request, ends_ms: int) -> LoginBlock:
    address, account = request.get("address"), request.get("account")
    if (address is None) == (account is None):
        raise Refused("name an address or an account")
    try:
        if address is not None:
            return block_address(str(address), ends_ms)
    except ValueError as fault:
        raise Refused(f"address: {fault}") from None
    if not isinstance(account, str) or not 0 < len(account) <= MAX_NAME_CHARS:
        raise Refused(f"account: expected a user name of at most {MAX_NAME_CHARS} characters")
    return block_account(account, ends_ms)


def _line(block: LoginBlock) -> Response:
    return {block.kind: block.name, "ends_at": from_millis(block.ends_ms)}


def _now_ms(scope: AdminScope) -> int:
    return int(scope.sources.wall() * 1_000)


async def block(scope: AdminScope, request: Request) -> Response:
    """Block logins and registrations from an address, or logins to an account, for `secs`, on every replica."""
    secs, now_ms = request.get("secs"), _now_ms(scope)
    if not isinstance(secs, int) or isinstance(secs, bool) or not 0 < secs <= MAX_LOGIN_BLOCK_SECS:
        raise Refused(f"secs: expected 1 to {MAX_LOGIN_BLOCK_SECS}, a whole number of seconds")
    wanted = _named(request, now_ms + secs * 1_000)
    try:
        if wanted.kind == ACCOUNT and await scope.storage.perform(FindUserByName(username_key=wanted.name)) is None:
            raise Refused(f"account: there is no {wanted.name!r}")
        done = await scope.storage.perform(BlockLogins(block=wanted, most=MAX_LOGIN_BLOCKS, now_ms=now_ms))
    except StorageUnavailable:
        raise Refused(NO_DATABASE) from None
    if not done:
        raise Refused(
            f"{MAX_LOGIN_BLOCKS} blocks are active, which is the maximum: block networks at the load balancer or firewall"
        )
    return {"blocked": _line(wanted)}


async def unblock(scope: AdminScope, request: Request) -> Response:
    """End a block. The answer's `was_blocked` tells whether it was in force."""
    now_ms = _now_ms(scope)
    named = _named(request, now_ms)
    try:
        ended = await scope.storage.perform(UnblockLogins(digest=named.digest, now_ms=now_ms))
    except StorageUnavailable:
        raise Refused(NO_DATABASE) from None
    return {"unblocked": {named.kind: named.name}, "was_blocked": ended}


async def blocks(scope: AdminScope, request: Request) -> Response:
    """List the blocks in force, soonest to end first."""
    del request
    try:
        found = await scope.storage.perform(ListLoginBlocks(now_ms=_now_ms(scope)))
    except StorageUnavailable:
        raise Refused(NO_DATABASE) from None
    return {"blocks": [_line(each) for each in found]}
