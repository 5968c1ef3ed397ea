"""The server's errors as exceptions, by status. Requests and gateway commands raise the same ones."""

from __future__ import annotations

from typing import Any

import msgspec

from openguild_proto.client.http import ClientResponse
from openguild_proto.client.proxy_answers import media_type, proxy_answer_reason
from openguild_proto.client.retry_advice import parse_retry_after
from openguild_proto.errors import ErrorCode
from openguild_proto.gateway.client_commands import LONE_SURROGATE
from openguild_proto.gateway.client_events import Ended, Refused
from openguild_proto.gateway.close_codes import GatewayClose

STATUS_BY_CODE: dict[str, int] = {code.spec.code: code.spec.status for code in ErrorCode}


class Problem(msgspec.Struct, frozen=True):
    """What is wrong with one field of a request."""

    field: str = ""
    message: str = ""


class ApiError(Exception):
    """An error response (PROTOCOL 3.6). Nothing was changed, unless `status` is 500 or above.

    `reason`: the code, message and details in one line. `retry_after_secs`: the server's advice, or None.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        request_id: str = "",
        details: tuple[Problem, ...] = (),
        retry_after_secs: float | None = None,
    ) -> None:
        problems = "; ".join(f"{problem.field} {problem.message}".strip() for problem in details)
        self.reason = (f"{code}: {message}" if message else code) + (f" ({problems})" if problems else "")
        super().__init__(f"{status} {self.reason}")
        self.status = status
        self.code = code
        self.message = message
        self.request_id = request_id
        self.details = details
        self.retry_after_secs = retry_after_secs

    def __reduce__(self) -> tuple[type[ApiError], tuple[object, ...]]:
        """Support pickling."""
        told = self.status, self.code, self.message, self.request_id, self.details, self.retry_after_secs
        return type(self), told


class Unauthorized(ApiError):
    """401: the session has ended, or name and password are wrong."""


class Forbidden(ApiError):
    """403: the user's role does not permit this, or the current password is wrong (`wrong_password`)."""


class NotFound(ApiError):
    """404: the object does not exist, or the user may not see it."""


class Conflict(ApiError):
    """409: the request conflicts with the current state, such as a name that is taken."""


class RateLimited(ApiError):
    """429: too many requests; see `retry_after_secs`."""


_BY_STATUS: dict[int, type[ApiError]] = {
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    429: RateLimited,
}


class _ErrorBody(msgspec.Struct):
    error: str = "unknown"
    message: str = ""
    request_id: str = ""
    details: tuple[Problem, ...] = ()


def api_error(response: ClientResponse) -> ApiError:
    """Return the error for an error response with any body."""
    try:
        body = msgspec.json.decode(response.body, type=_ErrorBody)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        body = _ErrorBody(
            message=proxy_answer_reason(response)
            or f"the response is not an error of the server, but {media_type(response) or 'without a content type'}"
        )
    return _BY_STATUS.get(response.status, ApiError)(
        response.status,
        body.error,
        body.message,
        body.request_id,
        body.details,
        parse_retry_after(response.header("retry-after")),
    )


def encoded(body: Any) -> bytes:
    """Return a body as JSON. Raises ApiError for a lone surrogate, which the server would refuse."""
    try:
        return msgspec.json.encode(body)
    except UnicodeEncodeError:
        spec = ErrorCode.INVALID_JSON.spec
        raise ApiError(spec.status, spec.code, LONE_SURROGATE) from None


def refused_command(refused: Refused) -> ApiError:
    """Return the error for a command that the gateway refused. An unknown code, of a newer server, gets status 400."""
    status = STATUS_BY_CODE.get(refused.code, 400)
    advised = refused.retry_after_ms / 1_000 if refused.retry_after_ms is not None else None
    details = tuple(Problem(problem.field, problem.message) for problem in refused.details)
    return _BY_STATUS.get(status, ApiError)(status, refused.code, refused.message, "", details, advised)


def session_end(ended: Ended) -> Unauthorized | None:
    """Return the error for a gateway connection that ended with the session, or None if it ended for another reason."""
    if ended.code != GatewayClose.SESSION_ENDED:
        return None
    spec = ErrorCode.UNAUTHORIZED.spec
    return Unauthorized(spec.status, spec.code, ended.reason)
