"""Declares a route next to its operation. Dispatch enforces the declaration; OpenAPI and docs/api.md print it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from types import ModuleType
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar

from openguild_proto.effects.channels import PageBounds
from openguild_proto.errors import ErrorCode
from openguild_proto.http.message import Request
from openguild_proto.limits import MAX_SMALL_BODY_BYTES
from openguild_proto.operations.context import Limit, Settings
from openguild_proto.operations.servers import PeerCaller
from openguild_proto.policy.permissions import Permission
from openguild_proto.sessions.tokens import Claims

Auth: TypeAlias = Literal["none", "bearer", "socket", "gateway", "refresh", "server"]
"""none; bearer: a token in the header; socket: for an upgrade, also in subprotocol or query; gateway: the socket authenticates
after its upgrade; refresh: a refresh token in the body; server: the signature of another server."""

OperationFunction: TypeAlias = Callable[..., Generator[Any, Any, Any]]
"""Called with the `Call`, and with the template's parameters by name."""

F = TypeVar("F", bound=OperationFunction)

MARK = "__routes__"


class Rights(NamedTuple):
    """The permission that a route needs in the `scope` of its path. None: only authentication.

    `late`: the operation calls `Call.permit` itself, after cheaper checks. `text`: describes rights without a scope.
    """

    scope: Literal["guild", "channel"] | None = None
    permission: Permission | None = None
    late: bool = False
    text: str = "self"

    def __str__(self) -> str:
        return self.permission.name if self.permission is not None else self.text


OWN = Rights()
SERVER_CODES = (
    ErrorCode.SIGNATURE_INVALID,
    ErrorCode.SERVER_DENIED,
    ErrorCode.NOT_IMPLEMENTED,
)


def in_guild(permission: Permission) -> Rights:
    """Require a permission in the guild `{guild_id}` of the path."""
    return Rights("guild", permission)


def in_channel(permission: Permission, *, late: bool = False) -> Rights:
    """Require a permission in the channel `{channel_id}` of the path."""
    return Rights("channel", permission, late)


class Parameter(NamedTuple):
    """A query parameter or a header. `parse(name, text)` returns its value or raises Refusal; None: the value is the text."""

    name: str
    schema: dict[str, Any]
    text: str
    parse: Callable[[str, str], Any] | None = None


class RunAs(NamedTuple):
    """Returned by an operation to run a client route for `claims`, a user of the server `caller`, and respond with its response."""

    request: Request
    claims: Claims
    caller: PeerCaller


class Media(NamedTuple):
    """A response without a Struct."""

    content_type: str
    schema: dict[str, Any]


NEED_TOKEN = frozenset({"bearer", "socket"})
"""The values of `auth` for routes that authenticate the caller by an access token."""


class Route(NamedTuple):
    """A row of the route table. `responses`: status to a Struct, a list of one, a `Media` or None (no body); the first is for
    success. `errors`: codes that do not follow from the other fields. `uncounted`: codes that are not counted as rejections.

    `max_body_bytes`: a longer body is refused by its declared length, unread.
    """

    method: str
    template: str
    operation: OperationFunction
    summary: str
    responses: Mapping[int, Any]
    auth: Auth = "bearer"
    rights: Rights = OWN
    query: tuple[Parameter, ...] | None = ()  # None: the query is ignored
    body: type | None = None
    body_required: bool = True  # False: an empty body stands for `{}`
    limits: tuple[Limit, ...] = ()
    errors: tuple[ErrorCode, ...] = ()
    uncounted: tuple[ErrorCode, ...] = ()
    refused_by: Callable[[Settings], ErrorCode | None] | None = None  # unless the configuration offers the route
    request_headers: tuple[Parameter, ...] = ()
    response_headers: tuple[str, ...] = ()  # on success
    frames: Any = None  # of a stream
    client: bool = True  # whether the route is also served under /client/v1
    at_owner: bool | None = None  # of a mirrored guild, its owner answers (PROTOCOL 16.7); None: changes, unless late
    for_remote: bool | None = None  # other servers may ask it for their users; None: what needs rights, unless late
    max_body_bytes: int = MAX_SMALL_BODY_BYTES
    when_off: Callable[[Request, Mapping[str, str], str], dict[str, object]] | None = None  # members of the 501
    page_of: Callable[[Mapping[str, Any]], PageBounds | None] | None = None  # of a query: what to read with the rights

    @property
    def module(self) -> str:
        """The name of the operation's module, such as `messages`."""
        return self.operation.__module__.rpartition(".")[2]

    @property
    def name(self) -> str:
        """The name of the operation, such as `messages.post_message`."""
        return f"{self.module}.{self.operation.__name__}"

    @property
    def status(self) -> int:
        """The status on success."""
        status: int = next(iter(self.responses))
        return status

    @property
    def is_answered_by_owner(self) -> bool:
        """Whether the owner of a mirrored guild answers it. A `late` route decides itself."""
        changes = self.method != "GET" and self.rights.scope is not None and not self.rights.late
        return changes if self.at_owner is None else self.at_owner

    @property
    def is_for_remote(self) -> bool:
        """Whether other servers may call it for their users. Events in channels are proposed instead (PROTOCOL 16.6)."""
        scoped = self.auth == "bearer" and self.rights.scope is not None and not self.rights.late
        return scoped if self.for_remote is None else self.for_remote

    @property
    def needs_token(self) -> bool:
        """Whether the caller must be authenticated by an access token."""
        return self.auth in NEED_TOKEN

    @property
    def permission(self) -> str:
        """For display: the name of a permission, "self", or "-" without authentication."""
        return str(self.rights) if self.needs_token else "-"

    @property
    def error_codes(self) -> tuple[ErrorCode, ...]:
        """All error codes of the route, without those of the transport."""
        codes = [*self.errors]
        if self.needs_token:
            codes.append(ErrorCode.UNAUTHORIZED)
        if self.auth == "server":
            codes += SERVER_CODES
        if self.auth in {"socket", "gateway"}:
            codes.append(ErrorCode.UPGRADE_REQUIRED)
        if self.rights.scope is not None:
            codes += [ErrorCode.NOT_FOUND, ErrorCode.FORBIDDEN, ErrorCode.TIMED_OUT]
        if self.is_answered_by_owner or self.rights.late or Limit.OWNER_READS in self.limits:
            codes.append(ErrorCode.GUILD_OFFLINE)
        if (
            ErrorCode.GUILD_OFFLINE in codes
        ):  # or federation is off, or an operator has decided against the other server
            codes += [ErrorCode.NOT_IMPLEMENTED, ErrorCode.SERVER_DENIED, ErrorCode.SERVER_QUARANTINED]
        if self.query is not None or "{" in self.template:
            codes.append(ErrorCode.VALIDATION)
        if self.body is not None:
            codes += [ErrorCode.INVALID_JSON, ErrorCode.UNSUPPORTED_MEDIA_TYPE, ErrorCode.TOO_LARGE]
        for limit in self.limits:
            codes += limit.codes
        if self.auth != "none" or self.limits:
            codes += [ErrorCode.DATABASE_UNAVAILABLE, ErrorCode.OVERLOADED]
        return tuple(sorted(dict.fromkeys(codes), key=lambda code: (code.spec.status, code.spec.code)))


def route(method: str, template: str, summary: str, responses: Mapping[int, Any], **known: Any) -> Callable[[F], F]:
    """Register the decorated operation for `method` at `template`. `known`: further fields of `Route`.

    Unless `limits` is given, routes of servers have the limit SERVERS, those with a bearer token QUERIES for GET and else WRITES.
    """
    auth = known.get("auth", "bearer")
    if auth == "server":
        known.setdefault("limits", (Limit.SERVERS,))
    elif auth == "bearer":
        known.setdefault("limits", (Limit.QUERIES if method == "GET" else Limit.WRITES,))

    def mark(operation: F) -> F:
        more = getattr(operation, MARK, ())
        setattr(operation, MARK, (Route(method, template, operation, summary, responses, **known), *more))
        return operation

    return mark


def collect_routes(*modules: ModuleType) -> tuple[Route, ...]:
    """Return the routes registered in `modules`, in order."""
    return tuple(
        found
        for module in modules
        for function in vars(module).values()
        if getattr(function, "__module__", None) == module.__name__
        for found in getattr(function, MARK, ())
    )
