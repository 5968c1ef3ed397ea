"""The headers in which a response shows the rate limits of its route (PROTOCOL 9.1.4; draft-ietf-httpapi-ratelimit-headers-11)."""

from __future__ import annotations

from functools import lru_cache

from openguild_proto.http.message import Headers
from openguild_proto.operations.context import Limit, Policy, Service
from openguild_proto.policy.addresses import limit_key
from openguild_proto.policy.quotas import StreamLimiter
from openguild_proto.policy.ratelimit import SlidingWindow

RATE_LIMIT = "ratelimit"
RATE_LIMIT_POLICY = "ratelimit-policy"


def rate_limit_headers(
    service: Service, limits: tuple[Limit, ...], *, user_id: str | None, address: str, now: float
) -> Headers:
    """Return the headers for `limits`, or none. `user_id` None: they show only policies of the address."""
    if not limits:
        return ()
    policies: list[str] = []
    items: list[str] = []
    for limit in limits:
        for policy in limit.policies:
            key = limit_key(address) if policy.of_address else user_id
            if key is not None:
                counted = getattr(service, policy.window)
                tell = _tell_streams if limit is Limit.STREAMS else _tell_window
                tell(policy, counted, key, now, policies, items)
    if not items:
        return ()
    return ((RATE_LIMIT_POLICY, ", ".join(policies)), (RATE_LIMIT, ", ".join(items)))


def _tell_window(
    policy: Policy, window: SlidingWindow, key: str, now: float, policies: list[str], items: list[str]
) -> None:
    left, secs = window.left(key, now)
    policies.append(_described(policy.name, window.limit, int(window.window_secs)))
    items.append(f'"{policy.name}";r={left};t={secs}')


def _tell_streams(
    policy: Policy, limiter: StreamLimiter, key: str, now: float, policies: list[str], items: list[str]
) -> None:
    """Show the limit of streams, which has no window: a place becomes free when a stream ends."""
    del now
    quota = limiter.addresses if policy.of_address else limiter.users
    policies.append(f'"{policy.name}";q={quota.most};qu="concurrent-requests"')
    items.append(f'"{policy.name}";r={quota.left(key)}')


@lru_cache(maxsize=64)
def _described(name: str, limit: int, window_secs: int) -> str:
    return f'"{name}";q={limit};w={window_secs}'
