"""Explains a request to an operator, from the records of the replicas."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from openguild_proto.diagnosis.printable import printable
from openguild_proto.diagnosis.requests import FinishedRequest
from openguild_proto.errors import ErrorCode
from openguild_proto.limits import SLOW_REQUEST_SECS

MEANINGS = {code.spec.code: code.spec.message for code in ErrorCode}
SWITCHED = 101  # a stream or gateway socket was opened


class Remembered(msgspec.Struct, omit_defaults=True, kw_only=True):
    """One replica's records of a request id, and how far back its records reach."""

    requests: list[FinishedRequest]
    usernames: dict[str, str]  # by user id
    lines: list[str]  # of the log
    kept: int  # requests in its records
    since: float | None = None  # UTC seconds: end of its oldest request
    troubled_since: float | None = None  # end of its oldest refused, failed or slow one


def is_known(remembered: list[Remembered]) -> bool:
    """Return whether any replica has a record of the request."""
    return any(each.requests or each.lines for each in remembered)


def explain(request_id: str, remembered: list[Remembered]) -> list[str]:
    """Return lines that explain what happened to the request. Some of their texts were chosen by peers."""
    text = [f"request {printable(request_id)}"]
    for each in remembered:
        for request in each.requests:
            text += _request(request, each.usernames)
    lines = [printable(line, kept="\n") for each in remembered for line in each.lines]
    if lines:
        text += ["", "log:", *lines]
    return text


def _request(request: FinishedRequest, usernames: dict[str, str]) -> list[str]:
    rows: list[tuple[str, str]] = [
        ("ended", _moment(request.ended_at)),
        ("route", f"{request.method} {request.route}".strip()),
        ("status", f"{request.status}{_outcome(request)}"),
        ("user", _user(request, usernames)),
        ("client", request.client),
        ("duration", f"{1000 * request.secs:.1f} ms{' (slow)' if request.secs >= SLOW_REQUEST_SECS else ''}"),
    ]
    if request.error is not None:
        rows.append(("error", f"{request.error}: {MEANINGS.get(request.error, '')}".rstrip(": ")))
    if request.reason is not None and request.reason != request.error:
        rows.append(("reason", request.reason))
    if request.detail is not None:
        rows.append(("detail", request.detail))
    if request.cause is not None:
        rows.append(("cause", f"{request.cause} (the client is not told)"))
    return ["", *(f"  {name:<9} {printable(value)}" for name, value in rows)]


def _outcome(request: FinishedRequest) -> str:
    if request.status == SWITCHED:
        return " (a stream or gateway socket was opened)"
    return " (the server's failure)" if request.status >= 500 else ""


def _user(request: FinishedRequest, usernames: dict[str, str]) -> str:
    user_id = request.user_id
    if user_id is None:
        return "not authenticated"
    name = usernames.get(user_id)
    user = user_id if name is None else f"{name} ({user_id})"
    return f"{user}, whose token was refused" if request.status == 401 else user


def not_found(request_id: str, remembered: list[Remembered]) -> str:
    """Return the line for an unknown id: how far back the records reach, and where else to look."""
    kept = sum(each.kept for each in remembered)
    oldest = [each.since for each in remembered if each.since is not None]
    troubled = [each.troubled_since for each in remembered if each.troubled_since is not None]
    reach = ""
    if oldest:
        reach = f"; requests since {_moment(max(oldest))}"
    if troubled:
        reach += f"{',' if reach else ';'} refused, failed and slow ones since {_moment(max(troubled))}"
    return (
        f"nothing is remembered of request {request_id} here ({kept} requests{reach}): ask the other hosts, or search the "
        f"logs for it"
    )


def _moment(secs: float) -> str:
    return datetime.fromtimestamp(secs, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
