"""`openguild-server probe URL`: a synthetic check from outside, one line per step (CONTRACT A12, playbook).

It needs no account and leaves nothing behind.
"""

from __future__ import annotations

import http.client
import json
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from openguild_proto.http.headers import SECURITY_HEADERS
from openguild_runtime.failures import CommandFailed

STEP_LIMIT_SECS = 5.0
MAX_BODY_BYTES = 1_048_576


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


Get = Callable[[str], Answer]


def _live(get: Get) -> str | None:
    answer = get("/live")
    return None if answer.status == 200 else f"status {answer.status}"


def _health(get: Get) -> str | None:
    answer = get("/health")
    return None if (answer.status, answer.body) == (200, b"ok") else f"status {answer.status}"


def _ready(get: Get) -> str | None:
    answer = get("/ready")
    status = _json(answer).get("status")
    return None if answer.status == 200 else f"status {answer.status}, {status}"


def _version(get: Get) -> str | None:
    answer = get("/version")
    return None if answer.status == 200 and _json(answer).get("version") else f"status {answer.status}"


def _authentication(get: Get) -> str | None:
    answer = get("/users/me")
    if answer.status != 401 or _json(answer).get("error") != "unauthorized":
        return f"a request without a token was answered with {answer.status}"
    return None


def _headers(get: Get) -> str | None:
    headers = get("/no-such-route").headers
    missing = [name for name in (*(name for name, _ in SECURITY_HEADERS), "x-request-id") if name not in headers]
    return f"missing {', '.join(missing)}" if missing else None


STEPS: dict[str, Callable[[Get], str | None]] = {
    "live": _live,
    "health": _health,
    "ready": _ready,
    "version": _version,
    "authentication": _authentication,
    "headers": _headers,
}


def probe(url: str) -> int:
    """0 when every step passed, else 1. Raises CommandFailed for a URL that is none."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise CommandFailed("probe: expected a URL such as http://127.0.0.1:8080")
    failed = False
    for name, step in STEPS.items():
        started = time.monotonic()
        try:
            problem = step(lambda path: _get(parts.scheme, parts.netloc, parts.path.rstrip("/") + path))
        except (OSError, http.client.HTTPException, ValueError) as failure:
            problem = getattr(failure, "strerror", None) or type(failure).__name__
        elapsed_ms = (time.monotonic() - started) * 1000
        sys.stdout.write(
            f"{'ok  ' if problem is None else 'FAIL'} {name} {elapsed_ms:.0f} ms{f': {problem}' if problem else ''}\n"
        )
        failed = failed or problem is not None
    return int(failed)


def _get(scheme: str, netloc: str, path: str) -> Answer:
    make = http.client.HTTPSConnection if scheme == "https" else http.client.HTTPConnection
    connection = make(netloc.rpartition("@")[2], timeout=STEP_LIMIT_SECS)
    try:
        connection.request("GET", path, headers={"accept": "application/json"})
        response = connection.getresponse()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, headers, response.read(MAX_BODY_BYTES))
    finally:
        connection.close()


def _json(answer: Answer) -> dict[str, Any]:
    value = json.loads(answer.body)
    return value if isinstance(value, dict) else {}
