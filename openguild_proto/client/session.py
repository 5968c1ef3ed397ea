"""The client's tokens, and the next step after a response: done, retry, refresh or fail."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from typing import Any

import msgspec

from openguild_proto.client.http import ClientResponse
from openguild_proto.client.proxy_answers import proxy_answer_reason
from openguild_proto.client.retry_advice import is_temporary, parse_retry_after
from openguild_proto.gateway.client_logs import ResumePosition, read_places
from openguild_proto.limits import REFRESH_AHEAD_SECS
from openguild_proto.schemas.accounts import TokenPair
from openguild_proto.sessions.tokens import unverified_issue_us


class Session:
    """The token pair of one login. Every refresh replaces both tokens.

    `refresh_at`: monotonic seconds. If unknown, as for a pair loaded from disk, the client refreshes after a 401.
    `positions`: how far the program has handled each log. They are passed on to the session that replaces this one.
    """

    __slots__ = ("access_token", "positions", "refresh_at", "refresh_token")

    def __init__(
        self,
        access_token: str,
        refresh_token: str,
        refresh_at: float = math.inf,
        positions: dict[str, ResumePosition] | None = None,
    ) -> None:
        self.access_token = access_token
        self.refresh_token = refresh_token
        self.refresh_at = refresh_at
        self.positions = positions if positions is not None else {}

    @classmethod
    def of(cls, body: bytes, now: float, positions: dict[str, ResumePosition] | None = None) -> Session:
        """Return the session from a login or refresh response that arrived at `now`. Raises msgspec.DecodeError, ValueError."""
        pair = msgspec.json.decode(body, type=TokenPair)
        life = _lifetime_secs(pair)
        refresh_at = now + life - min(REFRESH_AHEAD_SECS, life / 10) if life > 0 else math.inf
        return cls(pair.access_token, pair.refresh_token, refresh_at, positions)

    def to_dict(self) -> dict[str, Any]:
        """Return the pair and the positions for storage. Store them like a password. The next refresh invalidates the pair."""
        positions = {log: [place.epoch, place.sequence] for log, place in self.positions.items()}
        return {"access_token": self.access_token, "refresh_token": self.refresh_token, "positions": positions}

    @classmethod
    def from_dict(cls, kept: Mapping[str, Any]) -> Session:
        """Return the session that `to_dict` stored. Raises KeyError, ValueError."""
        positions = read_places(kept.get("positions", {}))
        access_token, refresh_token = kept["access_token"], kept["refresh_token"]
        if {type(access_token), type(refresh_token)} != {str}:
            raise ValueError("a token must be a str")
        return cls(access_token, refresh_token, positions=positions)

    def is_stale(self, now: float) -> bool:
        """Return whether the access token has expired or soon will."""
        return now >= self.refresh_at


def _lifetime_secs(pair: TokenPair) -> float:
    """Return the access token's lifetime by the server's clock, since the local clock may be wrong; 0 if unknown.

    Uses the token's time of issue and not the Date header, which a proxy may set.
    """
    issued_us = unverified_issue_us(pair.access_token)
    if issued_us is None:
        return 0.0
    return datetime.fromisoformat(pair.access_expires_at).timestamp() - issued_us / 1_000_000


class Step(Enum):
    """The next step after an attempt."""

    DONE = "done"
    RETRY = "retry"  # after a delay; only repeatable requests
    REFRESH = "refresh"  # get a new token, then retry
    FAIL = "fail"


def next_step(response: ClientResponse, *, repeatable: bool) -> tuple[Step, float | None]:
    """Return the next step after a response, and the delay that the server advises.

    `repeatable`: the request may be sent twice (GET, or a post with its nonce). Other requests are not retried after a
    429 or 503, because a 503 may follow a request that was carried out in part.
    """
    status = response.status
    if proxy_answer_reason(response) is not None:
        return (Step.RETRY if repeatable else Step.FAIL), None
    if status < 400:
        return Step.DONE, None
    if status == 401:
        return Step.REFRESH, None
    if is_temporary(status) and repeatable:
        return Step.RETRY, parse_retry_after(response.header("retry-after"))
    return Step.FAIL, None
