"""Limits attempts across all replicas: logins, registrations, refreshes (PROTOCOL 9.4).

Each replica checks its own windows first, without a query, and charges all of them or none. Then the store counts for all
replicas. While the store is down nothing is admitted, so the limits do not fail open.

For login and registration `attempt_from` checks the window of the address before the body is decoded, and charges it for
an invalid body; `count_attempt` does the rest. The store does not count invalid bodies, because they guess nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from blake3 import blake3

from openguild_proto.effects.accounts import FindUserByName, ListSessionAddresses
from openguild_proto.effects.attempts import AttemptKey, CountAttempt, LoginBlock
from openguild_proto.effects.base import Operation
from openguild_proto.errors import Refusal
from openguild_proto.limits import MAX_ACCOUNT_ADDRESSES
from openguild_proto.operations.context import Context, Limit
from openguild_proto.operations.ids import new_id
from openguild_proto.policy.addresses import limit_key, parse_address
from openguild_proto.policy.ratelimit import SlidingWindow
from openguild_proto.sessions.passwords import normalise_username

ADDRESS, ACCOUNT = "address", "account"  # kinds of limits that an operator can block


class Attempt(NamedTuple):
    """One attempt under one limit: this replica's window and the key in it. `kind` separates the limits in the store."""

    window: SlidingWindow
    kind: str
    key: str

    @property
    def stored(self) -> AttemptKey:
        """The key in the store: a 32-byte BLAKE3 hash, and the limit."""
        return _stored(f"{self.kind} {self.key}", self.window.limit)


def _stored(text: str, limit: int) -> AttemptKey:
    return AttemptKey(blake3(text.encode()).digest(), limit)


def admit(ctx: Context, attempts: tuple[Attempt, ...], limit: Limit) -> None:
    """Admit one more attempt in all of this replica's windows, or in none. Raises Refusal 429 with the seconds to wait."""
    for window, _, key in attempts:
        _require_admitted(window.peek(key, ctx.now), limit)
    for window, _, key in attempts:
        window.hit(key, ctx.now)


def count(ctx: Context, attempts: tuple[Attempt, ...], limit: Limit) -> Operation[None]:
    """Count one more attempt for all replicas. Raises Refusal 429 with the seconds to wait."""
    _require_admitted((yield from _count(ctx, attempts)), limit)


def _count(ctx: Context, attempts: tuple[Attempt, ...], *more: AttemptKey) -> Operation[float | None]:
    keys = (*(attempt.stored for attempt in attempts), *more)
    return (yield from CountAttempt(keys=keys, window_secs=int(attempts[0].window.window_secs), now_ms=ctx.wall_ms))


def _require_admitted(wait_secs: float | None, limit: Limit) -> None:
    if wait_secs is not None:
        raise limit.refusal(wait_secs)


# --- login and registration ------------------------------------------------------------------------


@contextmanager
def attempt_from(ctx: Context, address: str) -> Iterator[None]:
    """Read and check the body in this context. A refusal there charges the address an attempt. Raises Refusal 429."""
    window, key = ctx.service.address_logins, limit_key(address)
    _require_admitted(window.peek(key, ctx.now), Limit.ATTEMPTS)
    try:
        yield
    except Refusal:
        window.hit(key, ctx.now)
        raise


def count_attempt(ctx: Context, address: str, username_key: str) -> Operation[None]:
    """Count one attempt to log in to, or register, the account `username_key`. Raises Refusal 429 with the seconds to wait.

    An account has a limit per address, and MAX_ACCOUNT_ADDRESSES times that limit for all addresses together. Addresses at
    which it has a session are exempt from the second limit, so that other people's guesses do not lock its owner out.
    """
    service, address = ctx.service, limit_key(address)
    attempts = (
        Attempt(service.address_logins, ADDRESS, address),
        Attempt(service.account_logins, "account at", f"{address} {username_key}"),
    )
    admit(ctx, attempts, Limit.ATTEMPTS)
    everywhere = _stored(f"{ACCOUNT} {username_key}", service.account_logins.limit * MAX_ACCOUNT_ADDRESSES)
    wait_secs = yield from _count(ctx, attempts, everywhere)
    if wait_secs is not None and (yield from _has_session_at(ctx, address, username_key)):
        wait_secs = yield from _count(ctx, attempts)
    _require_admitted(wait_secs, Limit.ATTEMPTS)


def _has_session_at(ctx: Context, address: str, username_key: str) -> Operation[bool]:
    """Return whether the account has a session at the address. Makes the same queries for an unknown name (PROTOCOL 4.2.2)."""
    user = yield from FindUserByName(username_key=username_key)
    user_id = user.user_id if user is not None else new_id(ctx)
    addresses = yield from ListSessionAddresses(user_id=user_id, now_ms=ctx.wall_ms)
    return any(limit_key(one) == address for one in addresses)


# --- blocks of operators -----------------------------------------------------------------------------


def block_address(address: str, ends_ms: int) -> LoginBlock:
    """Return the block of logins and registrations from an address, for IPv6 from its /64. Raises ValueError if it is invalid."""
    if parse_address(address) is None:
        raise ValueError("is not an IP address")
    return _block(ADDRESS, limit_key(address), ends_ms)


def block_account(username: str, ends_ms: int) -> LoginBlock:
    """Return the block of logins to an account, except from addresses at which it has a session."""
    return _block(ACCOUNT, normalise_username(username)[1], ends_ms)


def _block(kind: str, name: str, ends_ms: int) -> LoginBlock:
    return LoginBlock(kind, name, ends_ms, _stored(f"{kind} {name}", 0).digest)
