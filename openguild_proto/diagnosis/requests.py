"""Remembers finished requests, so that an operator can find one by the id that a user quotes."""

from __future__ import annotations

from collections import deque

import msgspec

from openguild_proto.diagnosis.heavy_hitters import HeavyHitters
from openguild_proto.errors import ErrorCode
from openguild_proto.limits import MAX_REMEMBERED_REQUESTS, SLOW_REQUEST_SECS
from openguild_proto.policy.addresses import limit_key

FAILED_LOGINS = {ErrorCode.INVALID_CREDENTIALS.spec.code, ErrorCode.WRONG_PASSWORD.spec.code}


class FinishedRequest(msgspec.Struct, frozen=True, gc=False):
    """A request that was answered, or a connection that ended by a fault of its peer or at a deadline."""

    ended_at: float  # UTC seconds
    request_id: str
    method: str  # "" if the head could not be read
    route: str
    status: int
    secs: float  # from the request's last byte to its response
    client: str  # address
    user_id: str | None = None  # the caller; for a failed login the account; None: not authenticated
    error: str | None = None  # the `error` member of the response
    reason: str | None = None  # as counted in openguild_messaging_rejections_total
    detail: str | None = None  # the broken rule, the fields, or the limit
    cause: str | None = None  # not sent to the client, such as `expired` of a token


class FailedLogins:
    """Counts logins with a wrong password or an unknown name: in total, and over a minute by address and by account.

    A password change with a wrong current password also counts, because the thief of a token may guess.
    Unknown names are not stored: they may be passwords typed into the wrong field.
    """

    def __init__(self) -> None:
        self.total = 0  # since the start
        self.addresses, self.accounts = HeavyHitters(), HeavyHitters()

    def add(self, request: FinishedRequest) -> None:
        """Count a failed login, at the time when it ended."""
        self.total += 1
        self.addresses.count(limit_key(request.client), request.ended_at)
        if request.user_id is not None:
            self.accounts.count(request.user_id, request.ended_at)


class RequestHistory:
    """The newest requests. Refused, failed and slow ones are stored separately, so that others do not displace them."""

    def __init__(self, capacity: int = MAX_REMEMBERED_REQUESTS) -> None:
        self._ordinary: deque[FinishedRequest] = deque(maxlen=capacity)
        self._troubled: deque[FinishedRequest] = deque(maxlen=capacity)
        self.failed_logins = FailedLogins()
        self.answered = self.refused = self.failed = 0  # since the start: all, with 4xx, with 5xx

    def add(self, request: FinishedRequest) -> None:
        """Add a request. Drops the oldest one if full."""
        status = request.status
        self.answered += 1
        if request.error in FAILED_LOGINS:
            self.failed_logins.add(request)
        if status >= 500:
            self.failed += 1
        elif status >= 400:
            self.refused += 1
        elif request.secs < SLOW_REQUEST_SECS:
            self._ordinary.append(request)
            return
        self._troubled.append(request)

    def find(self, request_id: str) -> list[FinishedRequest]:
        """Return the requests with this id, oldest first. Clients may choose ids and repeat them."""
        found = [
            request for kept in (self._ordinary, self._troubled) for request in kept if request.request_id == request_id
        ]
        return sorted(found, key=lambda request: request.ended_at)

    def __len__(self) -> int:
        return len(self._ordinary) + len(self._troubled)

    def reaches_back_to(self) -> tuple[float | None, float | None]:
        """Return the end of the oldest ordinary and of the oldest troubled request, in UTC seconds, or None."""
        ordinary, troubled = self._ordinary, self._troubled
        return (ordinary[0].ended_at if ordinary else None), (troubled[0].ended_at if troubled else None)
