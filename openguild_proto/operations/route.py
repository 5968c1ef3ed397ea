"""What is known of a route, said once, where its operation stands: dispatch enforces it, OpenAPI and docs/API.md print it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from types import ModuleType
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar

from openguild_proto.errors import ErrorCode
from openguild_proto.limits import MAX_SMALL_BODY_BYTES
from openguild_proto.operations.context import Limit, Settings
from openguild_proto.policy.permissions import Permission

Auth: TypeAlias = Literal["none", "bearer", "socket", "refresh"]
"""Who may ask: anybody; a bearer token; the same for an upgrade, which may bring it elsewhere; a refresh token in the body."""

OperationFunction: TypeAlias = Callable[..., Generator[Any, Any, Any]]
"""Called with the `Call` and the template's parameters by name."""

F = TypeVar("F", bound=OperationFunction)

MARK = "__routes__"


class Rights(NamedTuple):
    """`scope`: the guild or channel of the path that decides. `permission` None: the caller's own things.

    `late`: the operation has something cheaper to refuse first and asks by `Call.permit`. `text`: for what no scope decides.
    """

    scope: Literal["guild", "channel"] | None = None
    permission: Permission | None = None
    late: bool = False
    text: str = "self"

    def __str__(self) -> str:
        return self.permission.name if self.permission is not None else self.text


OWN = Rights()


def in_guild(permission: Permission) -> Rights:
    """Decided by the caller's roles in the guild `{guild_id}` of the path."""
    return Rights("guild", permission)


def in_channel(permission: Permission, *, late: bool = False) -> Rights:
    """Decided by the caller's roles in the channel `{channel_id}` of the path."""
    return Rights("channel", permission, late)


class Parameter(NamedTuple):
    """A parameter of the query, or a header. `parse(name, text)` gives its value or raises Refusal; None: the text itself."""

    name: str
    schema: dict[str, Any]
    text: str
    parse: Callable[[str, str], Any] | None = None


class Media(NamedTuple):
    """An answer that no Struct describes."""

    content_type: str
    schema: dict[str, Any]


class Route(NamedTuple):
    """A row of the table of routes. `responses`: status to a Struct, a list of one, a `Media` or None (no body); the first is
    the good one. `errors`: codes beside those that follow from the other members. `uncounted`: codes that are no rejection.

    `max_body_bytes`: a longer body is refused from its declaration, unread: nobody's memory or time is spent on it.
    """

    method: str
    template: str
    operation: OperationFunction
    summary: str
    responses: Mapping[int, Any]
    auth: Auth = "bearer"
    rights: Rights = OWN
    query: tuple[Parameter, ...] | None = ()  # None: a query is not looked at
    body: type | None = None
    body_required: bool = True  # False: an empty body stands for `{}`
    limits: tuple[Limit, ...] = ()
    errors: tuple[ErrorCode, ...] = ()
    uncounted: tuple[ErrorCode, ...] = ()
    refused_by: Callable[[Settings], ErrorCode | None] | None = None  # the configuration does not offer it
    request_headers: tuple[Parameter, ...] = ()
    response_headers: tuple[str, ...] = ()  # of a good answer
    frames: Any = None  # what a stream sends
    client: bool = True  # also under /client/v1
    max_body_bytes: int = MAX_SMALL_BODY_BYTES

    @property
    def name(self) -> str:
        """The operation's, such as `messages.post_message`."""
        return f"{self.operation.__module__.rpartition('.')[2]}.{self.operation.__name__}"

    @property
    def status(self) -> int:
        """Of a good answer."""
        status: int = next(iter(self.responses))
        return status

    @property
    def needs_token(self) -> bool:
        """Somebody must be known to ask."""
        return self.auth in {"bearer", "socket"}

    @property
    def permission(self) -> str:
        """For people: the name of a permission, "self", or "-" where nobody is known."""
        return str(self.rights) if self.needs_token else "-"

    @property
    def error_codes(self) -> tuple[ErrorCode, ...]:
        """Every code that a request which reaches the route may be answered with; not those of its transport."""
        codes = [*self.errors]
        if self.needs_token:
            codes.append(ErrorCode.UNAUTHORIZED)
        if self.auth == "socket":
            codes.append(ErrorCode.UPGRADE_REQUIRED)
        if self.rights.scope is not None:
            codes += [ErrorCode.NOT_FOUND, ErrorCode.FORBIDDEN]
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
    """Say that the decorated operation answers `method` at `template`; `known`: further members of `Route`.

    Whatever changes something by a bearer token counts as one of the account's WRITES, unless `limits` says otherwise.
    """
    if method != "GET" and known.get("auth", "bearer") == "bearer":
        known.setdefault("limits", (Limit.WRITES,))

    def mark(operation: F) -> F:
        more = getattr(operation, MARK, ())
        setattr(operation, MARK, (Route(method, template, operation, summary, responses, **known), *more))
        return operation

    return mark


def collect_routes(*modules: ModuleType) -> tuple[Route, ...]:
    """The routes of the operations that stand in `modules`, in that order."""
    return tuple(
        found
        for module in modules
        for function in vars(module).values()
        if getattr(function, "__module__", None) == module.__name__
        for found in getattr(function, MARK, ())
    )
