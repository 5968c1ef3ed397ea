"""Sessions: login, refresh, revoke, devices (PROTOCOL 4.2 to 4.7)."""

from __future__ import annotations

from openguild_proto.effects.accounts import (
    FindRefreshFamily,
    FindUserByName,
    ListDevices,
    OpenSession,
    RevokeDevice,
    RevokeRefresh,
    RotateRefresh,
)
from openguild_proto.effects.base import Operation
from openguild_proto.effects.process import VerifyPassword, WarnOperator
from openguild_proto.errors import ErrorCode, FieldProblem, Refusal
from openguild_proto.http.message import Response
from openguild_proto.limits import MAX_DEVICE_FIELD_CHARS
from openguild_proto.operations.attempts import Attempt, admit, attempt_from, count, count_attempt
from openguild_proto.operations.call import Call
from openguild_proto.operations.context import Context, Limit
from openguild_proto.operations.ids import new_id
from openguild_proto.operations.route import route
from openguild_proto.policy.addresses import limit_key
from openguild_proto.policy.names import text_problem, title_problem
from openguild_proto.records import RefreshFamily, RotatedRefresh, UserRecord
from openguild_proto.schemas.accounts import DeviceLine, Login, RefreshToken, TokenPair
from openguild_proto.sessions.passwords import MUST, normalise_username, secret_problems
from openguild_proto.sessions.refresh import (
    SECRET_BYTES,
    TOKEN_BYTES,
    hash_refresh_token,
    new_refresh_token,
    next_refresh_token,
)
from openguild_proto.sessions.tokens import Claims
from openguild_proto.timestamps import from_millis


@route(
    "POST", "/sessions/login", "Log in on a device", {200: TokenPair},
    auth="none", body=Login, limits=(Limit.ATTEMPTS,), errors=(ErrorCode.INVALID_CREDENTIALS,),
)  # fmt: skip
def login(call: Call[Login, None]) -> Operation[Response]:
    """Log in on a device, and end its previous session."""
    ctx, request, body = call.ctx, call.request, call.body
    with attempt_from(ctx, request.client_address):
        identifier, secret = body.identifier.strip(), body.secret.strip()
        device_id = body.device.device_id.strip() if body.device is not None else ""
        device_name = (body.device.device_name or "").strip() or None if body.device is not None else None
        problems = _login_problems(body, identifier, secret, device_id, device_name)
        if problems:
            raise Refusal(ErrorCode.VALIDATION, details=problems)
    _, username_key = normalise_username(identifier)
    yield from count_attempt(ctx, request.client_address, username_key)
    user = yield from FindUserByName(username_key=username_key)
    # an unknown user costs the same as a wrong password (PROTOCOL 4.2.2)
    good = yield from VerifyPassword(password_hash=user.password_hash if user is not None else None, password=secret)
    if user is None or not good:
        raise _not_logged_in(user)
    tokens = _Tokens(ctx, new_refresh_token(ctx.entropy(TOKEN_BYTES)))
    agent = request.header("user-agent")
    opened = yield from OpenSession(
        session_id=tokens.session_id,
        family_id=new_id(ctx),
        user_id=user.user_id,
        checked_hash=user.password_hash,
        refresh_hash=tokens.refresh_hash,
        refresh_secret=ctx.entropy(SECRET_BYTES),
        device_id=device_id,
        device_name=device_name,
        user_agent=agent[:MAX_DEVICE_FIELD_CHARS] if agent is not None else None,
        ip_address=request.client_address or None,
        now_ms=ctx.wall_ms,
        access_expires_ms=tokens.access_expires_ms,
        refresh_expires_ms=tokens.refresh_expires_ms,
    )
    if not opened:  # the password was changed after it was verified
        raise _not_logged_in(user)
    return tokens.response(user.user_id, user.username)


def _not_logged_in(user: UserRecord | None) -> Refusal:
    return Refusal(
        ErrorCode.INVALID_CREDENTIALS,
        log_cause="unknown_user" if user is None else "wrong_password",
        log_user=user.user_id if user is not None else None,
    )


def _login_problems(
    body: Login, identifier: str, secret: str, device_id: str, device_name: str | None
) -> tuple[FieldProblem, ...]:
    problems: list[FieldProblem] = []
    if not identifier:
        problems.append(FieldProblem("identifier", MUST))
    problems += secret_problems(secret, "secret")
    if body.device is None:
        problems.append(FieldProblem("device", MUST))
    elif not device_id:
        problems.append(FieldProblem("device.device_id", MUST))
    for field, text, problem_of in (
        ("identifier", identifier, text_problem),  # an old account may have a name that is no longer allowed
        ("device.device_id", device_id, title_problem),
        ("device.device_name", device_name or "", title_problem),
    ):
        if len(text) > MAX_DEVICE_FIELD_CHARS:
            problems.append(FieldProblem(field, f"must be at most {MAX_DEVICE_FIELD_CHARS} characters long"))
        elif (problem := problem_of(text)) is not None:
            problems.append(FieldProblem(field, problem))
    return tuple(problems)


class _Tokens:
    """A new session id, its refresh token, and their expiry."""

    def __init__(self, ctx: Context, refresh_token: str) -> None:
        settings = ctx.service.settings
        self._ctx = ctx
        self._refresh_token = refresh_token
        self.session_id = new_id(ctx)
        self.refresh_hash = hash_refresh_token(refresh_token) or b""
        self.access_expires_ms = ctx.wall_ms + settings.session.access_ttl_secs * 1000
        self.refresh_expires_ms = ctx.wall_ms + settings.session.refresh_ttl_secs * 1000

    def response(self, user_id: str, username: str | None) -> Response:
        access_token = self._ctx.service.tokens.issue(
            Claims(self.session_id, user_id, username, self._ctx.wall_ms * 1000, self.access_expires_ms * 1000)
        )
        pair = TokenPair(
            access_token, from_millis(self.access_expires_ms), self._refresh_token, from_millis(self.refresh_expires_ms)
        )
        return Response.json(pair)


def _presented(body: RefreshToken) -> tuple[str, bytes | None]:
    """Return the refresh token in the body and its hash; None: not a token. Raises Refusal."""
    token = body.refresh_token.strip()
    if not token:
        raise Refusal(ErrorCode.VALIDATION, details=(FieldProblem("refresh_token", MUST),))
    return token, hash_refresh_token(token)


def _admit_address(ctx: Context, address: str) -> Attempt:
    """Admit one more refresh token from this address, without a query. Raises Refusal 429."""
    by_address = Attempt(ctx.service.address_refreshes, "refresh address", limit_key(address))
    admit(ctx, (by_address,), Limit.REFRESHES)
    return by_address


def _limit_refreshes(ctx: Context, address: str, refresh_hash: bytes) -> Operation[RefreshFamily]:
    """Admit one more refresh, and return its family. Raises Refusal 429, or 401 for a token without an active family.

    Each refresh leaves a session until its access token expires. Without a limit a family could grow until its
    revocation is slow.
    """
    service = ctx.service
    by_address = _admit_address(ctx, address)
    family = yield from FindRefreshFamily(refresh_hash=refresh_hash, now_ms=ctx.wall_ms)
    if family is None:
        raise Refusal(ErrorCode.INVALID_REFRESH_TOKEN)
    by_account = Attempt(service.account_refreshes, "refresh account", family.user_id)
    admit(ctx, (by_account,), Limit.REFRESHES)
    yield from count(ctx, (by_address, by_account), Limit.REFRESHES)
    return family


@route(
    "POST", "/sessions/refresh", "Exchange a refresh token", {200: TokenPair},
    auth="refresh", body=RefreshToken, limits=(Limit.REFRESHES,), errors=(ErrorCode.INVALID_REFRESH_TOKEN,),
)  # fmt: skip
def refresh(call: Call[RefreshToken, None]) -> Operation[Response]:
    """Exchange a refresh token for its successor, atomically.

    A repeat within the grace period gets the same successor. An older used token revokes its family.
    """
    ctx, request = call.ctx, call.request
    token, presented = _presented(call.body)
    if presented is None:
        raise Refusal(ErrorCode.INVALID_REFRESH_TOKEN)
    family = yield from _limit_refreshes(ctx, request.client_address, presented)
    tokens = _Tokens(ctx, next_refresh_token(token, family.secret))
    outcome = yield from RotateRefresh(
        refresh_hash=presented,
        new_refresh_hash=tokens.refresh_hash,
        new_session_id=tokens.session_id,
        now_ms=ctx.wall_ms,
        grace_ms=ctx.service.settings.refresh_grace_secs * 1000,
        access_expires_ms=tokens.access_expires_ms,
        refresh_expires_ms=tokens.refresh_expires_ms,
    )
    if isinstance(outcome, RotatedRefresh):
        return tokens.response(outcome.user_id, outcome.username)
    if outcome is None:
        raise Refusal(ErrorCode.INVALID_REFRESH_TOKEN)
    yield from WarnOperator(
        message="refresh token reused: its family is revoked",
        fields=(("user_id", outcome.user_id), ("family_id", outcome.family_id)),
    )
    raise Refusal(ErrorCode.INVALID_REFRESH_TOKEN, reason="refresh_token_reused")  # the response does not say so


@route("POST", "/sessions/revoke", "Log out", {204: None}, auth="refresh", body=RefreshToken, limits=(Limit.REFRESHES,))
def revoke(call: Call[RefreshToken, None]) -> Operation[Response]:
    """Log out; 204 whether or not the token is known.

    Counts as a refresh of the address, because it needs no authentication and costs a transaction.
    """
    ctx = call.ctx
    _, presented = _presented(call.body)
    if presented is not None:
        _admit_address(ctx, call.request.client_address)
        yield from RevokeRefresh(refresh_hash=presented, now_ms=ctx.wall_ms)
    return Response.empty()


@route("GET", "/sessions/devices", "List your devices", {200: list[DeviceLine]})
def list_devices(call: Call[None, None]) -> Operation[Response]:
    """List the caller's devices with an active session."""
    devices = yield from ListDevices(user_id=call.claims.user_id, now_ms=call.ctx.wall_ms)
    lines = [
        DeviceLine(
            device.device_id,
            device.device_name,
            from_millis(device.last_seen_at_ms),
            device.ip_address,
            device.user_agent,
        )
        for device in devices
    ]
    return Response.json(lines)


@route("DELETE", "/sessions/devices/{device_id}", "End a device's session", {204: None}, errors=(ErrorCode.NOT_FOUND,))
def delete_device(call: Call[None, None], device_id: str) -> Operation[Response]:
    """End the session of a device with its tokens and sockets."""
    ended = yield from RevokeDevice(author=call.claims.author, device_id=device_id, now_ms=call.ctx.wall_ms)
    if not ended:
        raise Refusal(ErrorCode.NOT_FOUND)
    return Response.empty()
