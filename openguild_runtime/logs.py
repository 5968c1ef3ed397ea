"""Structured logs on stderr: one formatter for structlog and stdlib records, compact lines or JSON lines.

Every record inside a request or a socket carries `request_id` (structlog's context variables). JSON mode is one
JSON object per line, tracebacks included (D-51). Tokens, passwords and the userinfo of URLs are redacted wherever
they might slip in.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO

import msgspec
import structlog

DEFAULT_FILTER = "info,openguild=info"
LEVELS = {"trace": 5, "debug": 10, "info": 20, "warn": 30, "warning": 30, "error": 40, "off": 100}
SECRET_KEYS = frozenset(
    {"authorization", "password", "secret", "token", "access_token", "refresh_token", "signing_key"}
)
PLAIN_KEYS = frozenset({"timestamp", "level", "logger", "route", "client"})  # made here, never by a client
HIDDEN = "***"

_PATTERNS = (
    (re.compile(r"(?i)\b(access_token|refresh_token|password|secret)=[^&\s\"']+"), r"\1=" + HIDDEN),
    (re.compile(r"(?i)\bbearer[ .][A-Za-z0-9._~+/=-]{8,}"), "Bearer " + HIDDEN),
    (re.compile(r"([a-z][a-z0-9+.-]*://)[^/\s:@]*:?[^/\s@]*@"), r"\1" + HIDDEN + "@"),
    (re.compile(r"\b[A-Za-z0-9_-]{40,}\.[A-Za-z0-9_-]{86}\b"), HIDDEN),  # an access token
)


_SUSPECT = re.compile(r"(?i)token=|password=|secret=|bearer|://|[A-Za-z0-9_-]{40}")


def redact(text: str) -> str:
    """The text without credentials."""
    if _SUSPECT.search(text) is None:
        return text
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def _redact_record(_logger: Any, _method: str, record: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key, value in record.items():
        if key in SECRET_KEYS:
            record[key] = HIDDEN
        elif isinstance(value, str) and key not in PLAIN_KEYS:
            record[key] = redact(value)
    return record


def _rename(_logger: Any, _method: str, record: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """`event` becomes `message`, `logger` becomes `target`: the names the log shippers know (CONTRACT 18)."""
    renamed: dict[str, Any] = {
        "timestamp": record.pop("timestamp", None),
        "level": str(record.pop("level", "")).upper(),
        "target": record.pop("logger", "openguild"),
        "message": record.pop("event", ""),
    }
    renamed.update(record)
    return renamed


def _compact(_logger: Any, _method: str, record: MutableMapping[str, Any]) -> str:
    """`time LEVEL target: message key=value ...`, one line; a traceback follows on its own lines."""
    trace = record.pop("exception", None)
    head = f"{record.pop('timestamp')} {record.pop('level'):>7} {record.pop('target')}: {record.pop('message')}"
    fields = " ".join(f"{key}={_value(value)}" for key, value in record.items())
    line = f"{head} {fields}" if fields else head
    return line if trace is None else f"{line}\n{redact(trace)}"


def _value(value: Any) -> str:
    text = str(value)
    return repr(text) if not text or any(character.isspace() for character in text) or not text.isprintable() else text


def parse_filter(text: str) -> dict[str, int]:
    """`info,openguild=debug` as logger name to level; the root is "". Raises ValueError naming the bad part."""
    levels = {"": logging.INFO}
    for part in text.split(","):
        if not part.strip():
            continue
        target, equals, level = part.strip().rpartition("=")
        if level.lower() not in LEVELS or (equals and not target):
            raise ValueError(
                f"OPENGUILD_LOG: {part.strip()!r} is not a level or target=level; levels are {', '.join(LEVELS)}"
            )
        levels[target.replace("::", ".")] = LEVELS[level.lower()]
    return levels


class _Target:
    """What one logger name writes through: its level and the stream. Our own records do not go through `logging`,
    which costs three times as much; the access log is on the path of every request."""

    __slots__ = ("level", "name", "stream")

    def __init__(self, name: str, level: int, stream: TextIO) -> None:
        self.name = name
        self.level = level
        self.stream = stream

    def write(self, line: str) -> None:
        self.stream.write(line + "\n")
        self.stream.flush()

    debug = info = warning = error = critical = exception = write


def _drop_below_level(target: _Target, method: str, record: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if LEVELS["error" if method in {"exception", "critical"} else method] < target.level:
        raise structlog.DropEvent
    record["logger"] = target.name
    return record


def _json(_logger: Any, _method: str, record: MutableMapping[str, Any]) -> str:
    return msgspec.json.encode(record, enc_hook=str).decode()


def _level_of(name: str, levels: dict[str, int]) -> int:
    """Of the longest target that the name begins with."""
    while name and name not in levels:
        name = name.rpartition(".")[0]
    return levels[name]


def configure(log_format: str, log_filter: str = DEFAULT_FILTER, stream: TextIO | None = None) -> None:
    """Set up both structlog and logging. Raises ValueError for a bad filter."""
    levels = parse_filter(log_filter)
    output = stream or sys.stderr
    last: list[structlog.typing.Processor] = [
        structlog.processors.format_exc_info,
        _redact_record,
        _rename,
        _json if log_format == "json" else _compact,
    ]
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[_drop_below_level, *shared, *last],
        logger_factory=lambda name="openguild": _Target(name, _level_of(name, levels), output),
        wrapper_class=structlog.make_filtering_bound_logger(min(min(levels.values()) // 10 * 10, logging.CRITICAL)),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(output)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    for name in ("alembic", "sqlalchemy", "asyncio"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("nats").setLevel(logging.ERROR)  # its errors come to the bus, which says what they mean
    for name, level in levels.items():
        logging.getLogger(name or None).setLevel(level)
