"""The errors that the server sends: code, HTTP status, message and rejection reason of the metric.

The documents, the OpenAPI description and the metrics are generated from this one table (PROTOCOL 3.6, 8.9, 11.2).
An operation refuses a request by raising `Refusal`; the dispatcher turns it into a response.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class FieldProblem(NamedTuple):
    """One entry of `details`: a dotted field path and what is wrong with it."""

    field: str
    message: str


class ErrorSpec(NamedTuple):
    """A row of the table: `error` member, HTTP status, default message, default rejection reason (or None)."""

    code: str
    status: int
    message: str
    reason: str | None = None


class ErrorCode(Enum):
    """The `error` member of the typed error body (PROTOCOL 3.6). Clients branch on `code`, people read `message`."""

    # 400
    INVALID_REQUEST = ErrorSpec("invalid_request", 400, "the request is not valid HTTP", "malformed_request")
    INVALID_JSON = ErrorSpec("invalid_json", 400, "the request body is not valid JSON", "invalid_json")
    VALIDATION = ErrorSpec("validation_error", 400, "the request has invalid fields", "validation")
    INVALID_SINCE = ErrorSpec(
        "invalid_since", 400, "since is not a position in this channel's log: start again", "invalid_since"
    )
    SEARCH_TOO_WIDE = ErrorSpec(
        "search_too_wide", 400, "this search takes too long: narrow it with more words, in, from, after or before",
        "search_too_wide",
    )  # fmt: skip
    INVALID_HANDSHAKE = ErrorSpec("invalid_handshake", 400, "the WebSocket handshake is not valid", "invalid_handshake")
    # 401, 403, 404, 405
    UNAUTHORIZED = ErrorSpec("unauthorized", 401, "a valid bearer token is required", "unauthorized")
    INVALID_CREDENTIALS = ErrorSpec("invalid_credentials", 401, "unknown user or wrong password", "invalid_credentials")
    INVALID_REFRESH_TOKEN = ErrorSpec(
        "invalid_refresh_token", 401, "the refresh token is unknown, used, revoked or expired", "invalid_refresh_token"
    )
    SIGNATURE_INVALID = ErrorSpec(
        "signature_invalid", 401, "the signature of this request is invalid", "signature_invalid"
    )
    SERVER_DENIED = ErrorSpec("server_denied", 403, "this server does not federate with that server", "server_denied")
    SERVER_QUARANTINED = ErrorSpec(
        "server_quarantined", 403, "this server accepts nothing new from that server", "server_quarantined"
    )
    FORBIDDEN = ErrorSpec("forbidden", 403, "your role does not permit this", "forbidden")
    TIMED_OUT = ErrorSpec("timed_out", 403, "you are timed out in this guild", "timed_out")
    BANNED = ErrorSpec("banned", 403, "you are banned from this guild", "banned")
    ORIGIN_NOT_ALLOWED = ErrorSpec(
        "origin_not_allowed", 403, "pages of this origin may not open streams here", "origin_not_allowed"
    )
    SENDER_MISMATCH = ErrorSpec("sender_mismatch", 403, "sender must be the authenticated user", "sender_mismatch")
    PRESENCE_OFF = ErrorSpec("presence_off", 403, "this server does not show who is online", "presence_off")
    WRONG_PASSWORD = ErrorSpec("wrong_password", 403, "the current password is wrong", "wrong_password")
    REGISTRATION_CLOSED = ErrorSpec(
        "registration_closed", 403, "registration is closed on this server", "registration_closed"
    )
    NOT_FOUND = ErrorSpec("not_found", 404, "not found, or you may not see it")
    METHOD_NOT_ALLOWED = ErrorSpec("method_not_allowed", 405, "this address does not support that method")
    # 408, 409, 410, 413, 414, 415, 417, 421, 426, 429, 431
    TIMEOUT = ErrorSpec("request_timeout", 408, "the request did not arrive in time", "request_timeout")
    USERNAME_TAKEN = ErrorSpec("username_taken", 409, "that username is taken", "username_taken")
    NONCE_REUSED = ErrorSpec("nonce_reused", 409, "this nonce or key was used for another request", "nonce_reused")
    LAST_OWNER = ErrorSpec("last_owner", 409, "a guild must keep at least one owner", "last_owner")
    MESSAGE_REDACTED = ErrorSpec(
        "message_redacted", 409, "this message was redacted and can no longer change", "message_redacted"
    )
    LIMIT_REACHED = ErrorSpec("limit_reached", 409, "the maximum number is reached", "limit_reached")
    ID_TAKEN = ErrorSpec("id_taken", 409, "this id belongs to another server", "id_taken")
    INVITE_EXPIRED = ErrorSpec("invite_expired", 410, "this invite has expired or is used up", "invite_expired")
    TOO_LARGE = ErrorSpec("payload_too_large", 413, "the request body is too large", "payload_too_large")
    URI_TOO_LONG = ErrorSpec("uri_too_long", 414, "the request target is too long", "malformed_request")
    UNSUPPORTED_MEDIA_TYPE = ErrorSpec(
        "unsupported_media_type", 415, "send the body as application/json", "unsupported_media_type"
    )
    EXPECTATION_FAILED = ErrorSpec(
        "expectation_failed", 417, "only Expect: 100-continue is supported", "malformed_request"
    )
    GUILD_MOVED = ErrorSpec("guild_moved", 421, "another server owns this guild now", "guild_moved")
    UPGRADE_REQUIRED = ErrorSpec("upgrade_required", 426, "only WebSocket version 13 is supported", "invalid_handshake")
    MESSAGE_RATE_LIMIT = ErrorSpec("message_rate_limit", 429, "you are sending messages too fast", "message_rate_limit")
    IP_RATE_LIMIT = ErrorSpec("ip_rate_limit", 429, "too many messages from this address", "ip_rate_limit")
    WRITE_RATE_LIMIT = ErrorSpec("write_rate_limit", 429, "you are changing things too fast", "write_rate_limit")
    READ_RATE_LIMIT = ErrorSpec("read_rate_limit", 429, "you are updating read positions too often", "read_rate_limit")
    TYPING_RATE_LIMIT = ErrorSpec(
        "typing_rate_limit", 429, "you are sending typing signals too often", "typing_rate_limit"
    )
    SEARCH_RATE_LIMIT = ErrorSpec("search_rate_limit", 429, "you are searching too fast", "search_rate_limit")
    QUERY_RATE_LIMIT = ErrorSpec("query_rate_limit", 429, "you are reading too fast", "query_rate_limit")
    OWNER_READ_RATE_LIMIT = ErrorSpec(
        "owner_read_rate_limit", 429, "you are reading too fast from another server", "owner_read_rate_limit"
    )
    LOGIN_RATE_LIMIT = ErrorSpec(
        "login_rate_limit", 429, "too many attempts; wait before trying again", "login_rate_limit"
    )
    REFRESH_RATE_LIMIT = ErrorSpec(
        "refresh_rate_limit", 429, "too many refreshes; wait before trying again", "refresh_rate_limit"
    )
    SERVER_RATE_LIMIT = ErrorSpec(
        "server_rate_limit", 429, "too many requests from this server; wait before trying again", "server_rate_limit"
    )
    CONNECTION_LIMIT = ErrorSpec("connection_limit", 429, "connection limit reached", "websocket_limit")
    HEADERS_TOO_LARGE = ErrorSpec("headers_too_large", 431, "the request head is too large", "malformed_request")
    # 5xx
    SERVER_ERROR = ErrorSpec("server_error", 500, "internal error; report it with the request id")
    NOT_IMPLEMENTED = ErrorSpec("not_implemented", 501, "this server does not support this yet")
    DATABASE_UNAVAILABLE = ErrorSpec(
        "database_unavailable", 503, "the database cannot be used now; retry later", "database_unavailable"
    )
    GUILD_OFFLINE = ErrorSpec(
        "guild_offline", 503, "the server that owns this guild cannot be reached; retry later", "guild_offline"
    )
    KEYS_UNREADABLE = ErrorSpec(
        "keys_unreadable", 503, "the keys of your server could not be read; retry later", "keys_unreadable"
    )
    OVERLOADED = ErrorSpec("overloaded", 503, "the server is at its limit; retry later", "overloaded")
    DRAINING = ErrorSpec("draining", 503, "this server is shutting down; retry elsewhere", "draining")
    HTTP_VERSION = ErrorSpec("http_version_not_supported", 505, "only HTTP/1.1 is supported", "malformed_request")

    @property
    def spec(self) -> ErrorSpec:
        """Return the row of the table."""
        return self.value


# Errors that leave the client unsure whether the request was carried out (PROTOCOL 3.6.3).
OUTCOME_UNKNOWN = frozenset(
    code.spec.code
    for code in ErrorCode
    if code.spec.status >= 500 and code not in {ErrorCode.NOT_IMPLEMENTED, ErrorCode.OVERLOADED, ErrorCode.DRAINING}
)


class Refusal(Exception):
    """The exception with which an operation answers a typed error. Raise it before anything has been changed.

    - `reason` overrides the counted rejection reason (PROTOCOL 3.6.5, `openguild_messaging_rejections_total`).
    - `wait_secs` becomes `Retry-After` and `retry_after_ms`.
    - `details` names the invalid fields.
    - `limit` is the rate limit that was exceeded.
    - `log_cause` is logged but not sent to the caller.
    - `log_user` is the user whose token or password was refused. It is logged for the operator.
    """

    def __init__(
        self,
        code: ErrorCode,
        message: str | None = None,
        *,
        details: tuple[FieldProblem, ...] = (),
        reason: str | None = None,
        wait_secs: float | None = None,
        limit: str | None = None,
        headers: tuple[tuple[str, str], ...] = (),
        log_cause: str | None = None,
        log_user: str | None = None,
    ) -> None:
        super().__init__(code.spec.code)
        self.code = code
        self.message = message or code.spec.message
        self.details = details
        self.reason = reason or code.spec.reason
        self.wait_secs = wait_secs
        self.limit = limit
        self.headers = headers
        self.log_cause = log_cause
        self.log_user = log_user
        self.members: dict[str, object] = {}  # extra members of the error body


class LocalProtocolError(Exception):
    """The caller broke the call contract (docs/embedding.md, "The call contract"). Nothing was changed."""
