"""Attempts to log in or register, limited before a password is hashed (CONTRACT A13, A14, D-21).

The order of both routes: `attempt_from` looks at this replica's window of the address, so that a full one refuses
before the body is decoded, and charges it for a body that is refused; `count_attempt` then looks at all windows, charges
all of them or none, and asks the store, which counts for all replicas together and just so. The store is not asked about
malformed bodies: nothing was guessed. Where it is away there is no login either, so the limit never fails open.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from blake3 import blake3

from openguild_proto.effects import AttemptKey, CountAttempt, FindUserByName, ListDevices, Operation
from openguild_proto.errors import ErrorCode, Refusal
from openguild_proto.limits import MAX_ACCOUNT_ADDRESSES
from openguild_proto.operations.context import Context
from openguild_proto.operations.ids import new_id
from openguild_proto.policy.addresses import limit_key


@contextmanager
def attempt_from(ctx: Context, address: str) -> Iterator[None]:
    """The body is read and checked within: what is refused there costs the address an attempt. Raises Refusal 429."""
    window, key = ctx.service.address_logins, limit_key(address)
    _require_admitted(window.peek(key, ctx.now))
    try:
        yield
    except Refusal:
        window.hit(key, ctx.now)
        raise


def count_attempt(ctx: Context, address: str, username_key: str | None = None) -> Operation[None]:
    """One more, on the account `username_key` where it is a login. Raises Refusal 429 with the seconds to wait.

    An account is limited for each address, and with MAX_ACCOUNT_ADDRESSES times that for all addresses together, but
    for those at which it has a session: others' guesses must not keep its owner out, and nobody can pretend an address.
    """
    service, address = ctx.service, limit_key(address)
    asked = [(service.address_logins, address, "address")]
    if username_key is not None:
        asked.append((service.account_logins, f"{address} {username_key}", "account at"))
    for window, key, _ in asked:
        _require_admitted(window.peek(key, ctx.now))
    for window, key, _ in asked:
        window.hit(key, ctx.now)
    keys = tuple(_digest(f"{kind} {key}", window.limit) for window, key, kind in asked)
    if username_key is None:
        _require_admitted((yield from _count(ctx, keys)))
        return
    everywhere = _digest(f"account {username_key}", service.account_logins.limit * MAX_ACCOUNT_ADDRESSES)
    wait_secs = yield from _count(ctx, (*keys, everywhere))
    if wait_secs is not None and (yield from _has_session_at(ctx, address, username_key)):
        wait_secs = yield from _count(ctx, keys)
    _require_admitted(wait_secs)


def _count(ctx: Context, keys: tuple[AttemptKey, ...]) -> Operation[float | None]:
    window_secs = int(ctx.service.address_logins.window_secs)
    return (yield from CountAttempt(keys=keys, window_secs=window_secs, now_ms=ctx.wall_ms))


def _digest(text: str, limit: int) -> AttemptKey:
    return AttemptKey(blake3(text.encode()).digest(), limit)


def _has_session_at(ctx: Context, address: str, username_key: str) -> Operation[bool]:
    """Asks as much of the store for a name that nobody has, so that the answer's time does not tell (D-21)."""
    user = yield from FindUserByName(username_key=username_key)
    user_id = user.user_id if user is not None else new_id(ctx)
    devices = yield from ListDevices(user_id=user_id, now_ms=ctx.wall_ms)
    return any(device.ip_address is not None and limit_key(device.ip_address) == address for device in devices)


def _require_admitted(wait_secs: float | None) -> None:
    if wait_secs is not None:
        raise Refusal(ErrorCode.LOGIN_RATE_LIMIT, retry_after_secs=int(wait_secs) + 1)
