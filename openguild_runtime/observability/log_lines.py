"""The two formats of a log line: compact for people, JSON for log collectors."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import msgspec

Record = dict[str, Any]

_encode = msgspec.json.Encoder(enc_hook=str).encode


def json_line(record: Record) -> str:
    """Format as one line of JSON. Raises ValueError and OverflowError for values that JSON cannot hold."""
    return _encode(record).decode() + "\n"


@lru_cache(maxsize=4_096)  # enough for all routes and statuses
def json_access_parts(
    target: str,
    message: str,
    process: tuple[tuple[str, int | str], ...],
    method: str,
    route: str,
    status: int,
) -> tuple[str, str]:
    """Return the parts of a request's access line between time and request ID, and between request ID and latency."""
    before: Record = {"level": "INFO", "target": target, "message": message, **dict(process), "request_id": ""}
    between: Record = {"method": method, "route": route, "status": status, "latency_ms": 0}
    return f",{json_line(before)[1:-3]}", f'",{json_line(between)[1:-3]}'


def compact_line(record: Record) -> str:
    """Format as the line `time LEVEL target: message key=value ... request_id=...`, followed by the lines of a traceback."""
    line = f"{record['timestamp']} {record['level']:>7} {record['target']}: {record['message']}"
    for key, value in record.items():
        if key not in _PLACED_KEYS:
            line += f" {key}={_value(value)}"
    request_id = record.get("request_id")
    if request_id is not None:
        line += f" request_id={_value(request_id)}"
    trace = record.get("exception")
    return f"{line}\n" if trace is None else f"{line}\n{trace}\n"


_PLACED_KEYS = frozenset({"timestamp", "level", "target", "message", "exception", "request_id"})


def _value(value: Any) -> str:
    text = str(value)
    return text if text and text.isprintable() and " " not in text else repr(text)


# --- colours ---------------------------------------------------------------------------------------

DIM, PLAIN = "\x1b[2m", "\x1b[0m"
LEVEL_COLOURS = {"WARNING": "\x1b[33m", "ERROR": "\x1b[31m", "CRITICAL": "\x1b[31m", "DEBUG": DIM}


def coloured(line: str) -> str:
    """Return a compact line with time and request ID dim, and the level coloured unless it is INFO."""
    time, _, rest = line.partition(" ")
    level = rest.split(maxsplit=1)[0] if rest.strip() else ""
    colour = LEVEL_COLOURS.get(level)
    if colour is not None:
        rest = rest.replace(level, f"{colour}{level}{PLAIN}", 1)
    before, found, request_id = rest.rpartition(" request_id=")
    if found and "\n" not in request_id.rstrip("\n"):
        rest = f"{before}{DIM}{found}{request_id.rstrip()}{PLAIN}\n"
    return f"{DIM}{time}{PLAIN} {rest}"
