"""Attempts that are counted for all replicas together: logins, registrations, refreshes (PROTOCOL 9.4).

Each replica looks at its own windows first, which costs no query, and charges all of them or none; then the store counts
for all replicas together. Where it is away nothing is admitted, so the limits never fail open.

Login and registration: `attempt_from` looks at this replica's window of the address, so that a full one refuses before
the body is decoded, and charges it for a body that is refused; `count_attempt` does the rest. The store is not asked
about malformed bodies: nothing was guessed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from blake3 import blake3

from openguild_proto.effects.accounts import FindUserByName, ListSessionAddresses
from openguild_proto.effects.attempts import AttemptKey, CountAttempt
from openguild_proto.effects.base import Operation
from openguild_proto.errors import ErrorCode, Refusal
from openguild_proto.limits import MAX_ACCOUNT_ADDRESSES
from openguild_proto.operations.context import Context
from openguild_proto.operations.ids import new_id
from openguild_proto.policy.addresses import limit_key
from openguild_proto.policy.ratelimit import SlidingWindow


class Asked(NamedTuple):
    """One limit: this replica's window, and the key in it. `kind` keeps keys of different limits apart in the store."""

    window: SlidingWindow
    kind: str
    key: str

    @property
    def stored(self) -> AttemptKey:
        """This limit as the store counts it for all replicas together: a BLAKE3 hash, 32 bytes, and the limit."""
        return _stored(f"{self.kind} {self.key}", self.window.limit)


def _stored(text: str, limit: int) -> AttemptKey:
    return AttemptKey(blake3(text.encode()).digest(), limit)


def admit(ctx: Context, attempts: tuple[Asked, ...], code: ErrorCode) -> None:
    """One more in each of this replica's windows, or in none. Raises Refusal 429 with the seconds to wait."""
    for window, _, key in attempts:
        _require_admitted(window.peek(key, ctx.now), code)
    for window, _, key in attempts:
        window.hit(key, ctx.now)


def count(ctx: Context, attempts: tuple[Asked, ...], code: ErrorCode) -> Operation[None]:
    """One more for all replicas together. Raises Refusal 429 with the seconds to wait."""
    _require_admitted((yield from _count(ctx, attempts)), code)


def _count(ctx: Context, attempts: tuple[Asked, ...], *more: AttemptKey) -> Operation[float | None]:
    keys = (*(asked.stored for asked in attempts), *more)
    return (yield from CountAttempt(keys=keys, window_secs=int(attempts[0].window.window_secs), now_ms=ctx.wall_ms))


def _require_admitted(wait_secs: float | None, code: ErrorCode) -> None:
    if wait_secs is not None:
        raise Refusal(code, retry_after_secs=int(wait_secs) + 1)


# --- login and registration ------------------------------------------------------------------------


@contextmanager
def attempt_from(ctx: Context, address: str) -> Iterator[None]:
    """The body is read and checked within: what is refused there costs the address an attempt. Raises Refusal 429."""
    window, key = ctx.service.address_logins, limit_key(address)
    _require_admitted(window.peek(key, ctx.now), ErrorCode.LOGIN_RATE_LIMIT)
    try:
        yield
    except Refusal:
        window.hit(key, ctx.now)
        raise


def count_attempt(ctx: Context, address: str, username_key: str) -> Operation[None]:
    """One more, on the account `username_key`, which registering counts for too. Raises Refusal 429 with the seconds to wait.

    An account is limited for each address, and with MAX_ACCOUNT_ADDRESSES times that for all addresses together, but
    for those at which it has a session: others' guesses must not keep its owner out, and nobody can pretend an address.
    """
    service, address, code = ctx.service, limit_key(address), ErrorCode.LOGIN_RATE_LIMIT
    attempts = (
        Asked(service.address_logins, "address", address),
        Asked(service.account_logins, "account at", f"{address} {username_key}"),
    )
    admit(ctx, attempts, code)
    everywhere = _stored(f"account {username_key}", service.account_logins.limit * MAX_ACCOUNT_ADDRESSES)
    wait_secs = yield from _count(ctx, attempts, everywhere)
    if wait_secs is not None and (yield from _has_session_at(ctx, address, username_key)):
        wait_secs = yield from _count(ctx, attempts)
    _require_admitted(wait_secs, code)


def _has_session_at(ctx: Context, address: str, username_key: str) -> Operation[bool]:
    """Asks as much of the store for a name that nobody has, so that the answer's time does not tell (PROTOCOL 4.2.2)."""
    user = yield from FindUserByName(username_key=username_key)
    user_id = user.user_id if user is not None else new_id(ctx)
    living = yield from ListSessionAddresses(user_id=user_id, now_ms=ctx.wall_ms)
    return any(limit_key(one) == address for one in living)
