"""Remembers finished requests, so that an operator finds the one whose id a user quotes."""

from __future__ import annotations

from collections import deque

import msgspec

from openguild_proto.diagnosis.busiest import Busiest
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
    user_id: str | None = None  # of a failed login: whose password was wrong; None: not authenticated
    error: str | None = None  # the `error` member of the response
    reason: str | None = None  # as counted in openguild_messaging_rejections_total
    detail: str | None = None  # the rule that was broken, the fields, the limit
    cause: str | None = None  # why, where the client is not told, such as `expired` of a token


class FailedLogins:
    """Counts logins with a wrong password or an unknown name, in all and over a minute by address and by account.

    A password change with a wrong current password counts, too: the thief of a token may guess.
    A name that nobody has is not kept: it may be a password in the wrong field.
    """

    def __init__(self) -> None:
        self.total = 0  # since the start
        self.addresses, self.accounts = Busiest(), Busiest()

    def add(self, request: FinishedRequest) -> None:
        """Count a failed login, at the time of its end."""
        self.total += 1
        self.addresses.count(limit_key(request.client), request.ended_at)
        if request.user_id is not None:
            self.accounts.count(request.user_id, request.ended_at)


class RequestHistory:
    """Keeps the newest requests. Refused, failed and slow ones have a place of their own, so that others do not push them out."""

    def __init__(self, capacity: int = MAX_REMEMBERED_REQUESTS) -> None:
        self._ordinary: deque[FinishedRequest] = deque(maxlen=capacity)
        self._troubled: deque[FinishedRequest] = deque(maxlen=capacity)
        self.failed_logins = FailedLogins()
        self.answered = self.refused = self.failed = 0  # since the start: all, with 4xx, with 5xx

    def add(self, request: FinishedRequest) -> None:
        """Remember a request. The oldest one is forgotten if there is no room."""
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
        """Return the requests with this id, oldest first: a client may choose an id, and repeat it."""
        found = [
            request for kept in (self._ordinary, self._troubled) for request in kept if request.request_id == request_id
        ]
        return sorted(found, key=lambda request: request.ended_at)

    def __len__(self) -> int:
        return len(self._ordinary) + len(self._troubled)

    def reaches_back_to(self) -> tuple[float | None, float | None]:
        """Return the end of the oldest ordinary request and of the oldest troubled one, in UTC seconds; None: there is none."""
        ordinary, troubled = self._ordinary, self._troubled
        return (ordinary[0].ended_at if ordinary else None), (troubled[0].ended_at if troubled else None)
