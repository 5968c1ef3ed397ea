"""The client's tokens, and what an answer means for the next step: done, again, refresh first, or give up."""

from __future__ import annotations

from datetime import datetime
from enum import Enum

import msgspec

from openguild_proto.client.backoff import advised_by_header
from openguild_proto.client.http import ClientResponse
from openguild_proto.schemas.accounts import TokenPair

REFRESH_AHEAD_MS = 60_000  # before the token ends, so that no request meets the end; a tenth of a shorter life


class ApiError(Exception):
    """The server's typed refusal (CONTRACT A3): `status`, `code`, `message`, `request_id`, `details`."""

    def __init__(
        self, status: int, code: str, message: str, request_id: str, details: tuple[dict[str, str], ...] = ()
    ) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.request_id = request_id
        self.details = details


class _ErrorBody(msgspec.Struct):
    error: str = "unknown"
    message: str = ""
    request_id: str = ""
    details: tuple[dict[str, str], ...] = ()


class Session:
    """The token pair of one login. `refresh_token` changes with every refresh; times are UTC milliseconds."""

    __slots__ = ("access_token", "refresh_at_ms", "refresh_token")

    def __init__(self, access_token: str, refresh_token: str, refresh_at_ms: int) -> None:
        self.access_token = access_token
        self.refresh_token = refresh_token
        self.refresh_at_ms = refresh_at_ms

    @classmethod
    def of(cls, body: bytes, wall_ms: int) -> Session:
        """From the answer to a login or refresh. Raises msgspec.DecodeError, ValueError."""
        pair = msgspec.json.decode(body, type=TokenPair)
        expires_ms = int(datetime.fromisoformat(pair.access_expires_at).timestamp() * 1000)
        ahead = min(REFRESH_AHEAD_MS, max(0, expires_ms - wall_ms) // 10)
        return cls(pair.access_token, pair.refresh_token, expires_ms - ahead)

    def is_stale(self, wall_ms: int) -> bool:
        """The access token has ended or is about to."""
        return wall_ms >= self.refresh_at_ms


class Step(Enum):
    """What to do after an attempt."""

    DONE = "done"
    RETRY = "retry"  # after a delay; the request is one that may be repeated
    REFRESH = "refresh"  # the token is not accepted: get a new one, then try again
    FAIL = "fail"


RETRY_STATUS = frozenset({408, 429, 500, 502, 503, 504})


def next_step(response: ClientResponse, *, repeatable: bool) -> tuple[Step, float | None]:
    """What follows from an answer, and the delay that the server advises.

    `repeatable`: sending it again does no harm (GET, or a post with its nonce). 429 and 503 from this server
    promise that nothing was done only where nothing was begun, so other requests are not repeated on them.
    """
    status = response.status
    if status < 400:
        return Step.DONE, None
    if status == 401:
        return Step.REFRESH, None
    if status in RETRY_STATUS and repeatable:
        return Step.RETRY, advised_by_header(response.header("retry-after"))
    return Step.FAIL, None


def api_error(response: ClientResponse) -> ApiError:
    """The typed error of a refusal, whatever the body is."""
    try:
        body = msgspec.json.decode(response.body, type=_ErrorBody)
    except msgspec.MsgspecError:
        body = _ErrorBody()
    return ApiError(response.status, body.error, body.message, body.request_id, body.details)
