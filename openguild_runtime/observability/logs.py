"""Structured logs on stderr, for records of structlog and of `logging`, as compact lines or as JSON lines.

Every record of a request or a socket has its `request_id` (log_context.py). JSON mode writes one object per line, including
tracebacks (PROTOCOL 11.3.1). Tokens, passwords and the userinfo of URLs are redacted in all values.

Every request writes an access log line. For speed, structlog's records bypass `logging` and processors. A thread writes the
lines (log_writer.py), so that a slow reader does not block the loop.
"""

from __future__ import annotations

import atexit
import logging
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TextIO

import structlog

from openguild_proto.diagnosis.lines import LineHistory
from openguild_runtime.observability.log_context import process_fields
from openguild_runtime.observability.log_context import request_id as current_request_id
from openguild_runtime.observability.log_lines import Record, coloured, compact_line, json_access_parts, json_line
from openguild_runtime.observability.log_writer import LogWriter

DEFAULT_FILTER = "info,openguild=info"
WRITER = "openguild.log"  # target of messages about the log itself
AUDIT = "openguild.audit"  # target of administrators' changes
ACCESS_TARGET = "openguild.http"
ACCESS = "request completed"  # message of the access log; openguild_proto/diagnosis keeps these requests
LEVELS = {"trace": 5, "debug": 10, "info": 20, "warn": 30, "warning": 30, "error": 40, "off": 100}
SECRET_KEYS = frozenset(
    {"authorization", "password", "secret", "token", "access_token", "refresh_token", "signing_key"}
)
HIDDEN = "***"
STANDARD_ERROR = 2  # descriptor
EXIT_SECS = 0.4  # to write the remaining lines at exit

# Peers can choose the text, so each pattern takes linear time: lookbehinds bound what precedes a run, and runs are possessive.
_PATTERNS = (
    (re.compile(r"(?i)\b(access_token|refresh_token|password|secret)=[^&\s\"']+"), r"\1=" + HIDDEN),
    (re.compile(r"(?i)\bbearer[ .][A-Za-z0-9._~+/=-]{8,}"), "Bearer " + HIDDEN),
    (re.compile(r"(?<=[A-Za-z0-9+.-]://)[^/\s@]*+@"), HIDDEN + "@"),
    (re.compile(r"(?<![A-Za-z0-9_-])[A-Za-z0-9_-]{40,}+\.[A-Za-z0-9_-]{86}\b"), HIDDEN),  # an access token
)
_GENERATED_ID = re.compile(r"[0-9a-f-]{36}")  # an ID made by this server, which has no secret
_TOKEN_END = re.compile(r"\.[A-Za-z0-9_-]{86}")


# --- redaction -------------------------------------------------------------------------------------


def may_contain_secret(text: str) -> bool:
    """Return whether the text may contain a secret. A fast check of a whole line, before each field is redacted."""
    low = text.lower()
    return (
        "://" in low
        or "token" in low
        or "password" in low
        or "secret" in low
        or "signing_key" in low
        or "authorization" in low
        or "bearer" in low
        or _TOKEN_END.search(text) is not None
    )


def redact(text: str) -> str:
    """Return the text without credentials."""
    if not may_contain_secret(text):
        return text
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def _redacted(value: Any) -> Any:
    match value:
        case str():
            return redact(value)
        case None | bool() | int() | float():
            return value
        case Mapping():
            return {str(key): HIDDEN if key in SECRET_KEYS else _redacted(item) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_redacted(item) for item in value]
        case _:
            return redact(str(value))


# --- lines -----------------------------------------------------------------------------------------


def _render(level: str, target: str, message: object, fields: Record) -> str:
    """Return the line of a record. Log collectors rely on the names `message` and `target` (PROTOCOL 11.3.1)."""
    record: Record = {"timestamp": _timestamp(), "level": level, "target": target, "message": message}
    record |= process_fields
    if (bound := current_request_id.get()) is not None:
        record["request_id"] = bound
    record |= fields
    try:
        line = _state.format(record)
        if may_contain_secret(line):
            line = _state.format(_redacted(record))
    except (ValueError, OverflowError):  # a lone surrogate or an integer beyond 64 bits
        safe = _redacted(record)
        line = _state.format({key: ascii(safe[key]) if key in fields else safe[key] for key in record})
    if message != ACCESS and (request_id := record.get("request_id")) is not None:
        _state.remembered.add(str(request_id), line)
    return coloured(line) if _state.has_colours else line


def log_access(
    request_id: str, *, method: str, route: str, status: int, latency_ms: float, client: str, refused: Record
) -> None:
    """Write the access log line of a request. `method`, `route` and `client` contain no text of a peer, so no secret."""
    target = _state.targets.get(ACCESS_TARGET) or _target(ACCESS_TARGET)
    if target.level > logging.INFO:
        return
    may_hold_secret = bool(refused) or _GENERATED_ID.fullmatch(request_id) is None
    if _state.format is json_line and not may_hold_secret:  # a faster way to the same line
        process = tuple(process_fields.items()) if process_fields else ()
        before, between = json_access_parts(target.name, ACCESS, process, method, route, status)
        client_json = json_line({"client": client})[1:]
        line = f'{{"timestamp":"{_timestamp()}"{before}{request_id}{between}{latency_ms},{client_json}'
    else:
        fields: Record = {
            "request_id": request_id, "method": method, "route": route, "status": status, "latency_ms": latency_ms,
            "client": client, **refused,
        }  # fmt: skip
        line = _render("INFO", target.name, ACCESS, fields)
    (_state.sink or _sink()).append(line)


def _timestamp() -> str:
    """Return the time as ISO 8601 in UTC. The part up to the second is formatted once per second."""
    second, nanos = divmod(time.time_ns(), 1_000_000_000)
    if second != _state.second:
        _state.second, _state.shown = second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
    return f"{_state.shown}.{nanos // 1000:06d}Z"


def start_failure_line(message: str) -> str:
    """Return the JSON line of a process that could not start, without the filter, which may not be configured yet."""
    text = redact(message).encode(errors="backslashreplace").decode()  # paths may contain lone surrogates
    return json_line({"timestamp": _timestamp(), "level": "ERROR", "target": "openguild.server", "message": text})


# --- sinks -----------------------------------------------------------------------------------------


class _Sink(Protocol):
    """A destination of complete lines."""

    @property
    def dropped(self) -> int:
        """The number of lines that were not written."""

    def append(self, line: str) -> None:
        """Write the line, now or later."""

    def flush(self, secs: float) -> bool:
        """Wait for at most `secs` until all lines are written. Return whether they are."""


class _Stream:
    """Writes at once to a stream that is not a descriptor, such as a buffer. None stands for the current `sys.stderr`."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream
        self.dropped = 0

    def append(self, line: str) -> None:
        stream = self._stream or sys.stderr
        try:
            if stream is not None:
                stream.write(line)
                stream.flush()
        except (OSError, ValueError):  # the stream is closed
            self.dropped += 1

    def flush(self, secs: float) -> bool:
        del secs
        return True


def _standard_error() -> _Sink:
    """Return the sink for stderr, or for its replacement, for example in a test that captures it."""
    if sys.stderr is not None and sys.stderr is sys.__stderr__:
        return LogWriter(STANDARD_ERROR, _describe_gap)
    return _Stream()


def _describe_gap(dropped: int, problem: str) -> str:
    if _target(WRITER).level > logging.WARNING:
        return ""
    if problem:
        fields = {"problem": problem, "dropped": dropped}
        return _render("WARNING", WRITER, "log lines were dropped: they could not be written", fields)
    return _render("WARNING", WRITER, "log lines were dropped: the reader is too slow", {"dropped": dropped})


class _State:
    """The state that `configure` sets. Existing loggers read it too, so a change applies to them."""

    def __init__(self) -> None:
        self.levels: dict[str, int] = {"": logging.INFO}
        self.targets: dict[str, _Target] = {}
        self.named: set[str] = set()  # `logging` loggers whose level the previous filter set
        self.format: Callable[[Record], str] = compact_line
        self.has_colours = False
        self.sink: _Sink | None = None
        self.remembered = LineHistory()
        self.second, self.shown = -1, ""


class _Target:
    """A logger name and its current level."""

    __slots__ = ("level", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.level = _level_of(name, _state.levels)


_state = _State()


def _sink() -> _Sink:
    if _state.sink is None:
        _state.sink = _standard_error()
    return _state.sink


def _target(name: str = "openguild") -> _Target:
    return _state.targets.setdefault(name, _Target(name))


class _Logger(structlog.BoundLoggerBase):
    """The logger of `structlog.get_logger(name)`. A record below its target's level costs one comparison."""

    _logger: _Target

    def debug(self, event: object, /, **fields: Any) -> None:
        if self._logger.level <= logging.DEBUG:
            self._write("DEBUG", event, fields)

    def info(self, event: object, /, **fields: Any) -> None:
        if self._logger.level <= logging.INFO:
            self._write("INFO", event, fields)

    def warning(self, event: object, /, **fields: Any) -> None:
        if self._logger.level <= logging.WARNING:
            self._write("WARNING", event, fields)

    def error(self, event: object, /, **fields: Any) -> None:
        if self._logger.level <= logging.ERROR:
            self._write("ERROR", event, fields)

    def exception(self, event: object, /, **fields: Any) -> None:
        if self._logger.level <= logging.ERROR:
            self._write("ERROR", event, fields | {"exception": traceback.format_exc().rstrip("\n")})

    def _write(self, level: str, event: object, fields: Record) -> None:
        line = _render(level, self._logger.name, event, self._context | fields if self._context else fields)
        (_state.sink or _sink()).append(line)


class _Formatter(logging.Formatter):
    """Formats a record of `logging` like a structlog record."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {"exception": self.formatException(record.exc_info)} if record.exc_info else {}
        return _render(record.levelname, record.name, record.getMessage(), fields)


class _Handler(logging.Handler):
    """Sends the records of `logging` to the sink."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            _sink().append(self.format(record))
        except Exception:  # as in logging's handlers, a bad record must not raise in the caller
            self.handleError(record)


# --- configuration ---------------------------------------------------------------------------------


def parse_filter(text: str) -> dict[str, int]:
    """Parse a filter such as `info,openguild=debug` into levels by logger name, "" for the root. Raises ValueError."""
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


def _level_of(name: str, levels: dict[str, int]) -> int:
    """Return the level of the longest target that is a prefix of the name. The audit log has only its own target."""
    if name == AUDIT:
        return levels.get(AUDIT, logging.INFO)
    while name and name not in levels:
        name = name.rpartition(".")[0]
    return levels[name]


def configure(log_format: str, log_filter: str = DEFAULT_FILTER, stream: TextIO | None = None) -> None:
    """Configure structlog and `logging`. Raises ValueError for an invalid filter and then changes nothing."""
    levels = parse_filter(log_filter)
    flush()  # earlier lines go to the earlier sink
    if stream is not None:
        _state.sink = _Stream(stream)
    elif not isinstance(_state.sink, LogWriter):  # keep the writer of descriptor 2 even if `sys.stderr` was replaced
        _state.sink = _standard_error()
    _state.format = json_line if log_format == "json" else compact_line
    _state.has_colours = is_for_people() and isinstance(_state.sink, LogWriter) and _shows_colours()
    structlog.configure(processors=[], logger_factory=_target, wrapper_class=_Logger, cache_logger_on_first_use=True)
    handler = _Handler()
    handler.setFormatter(_Formatter())
    logging.getLogger().handlers[:] = [handler]
    set_filter(levels)


def is_for_people() -> bool:
    """Return whether lines are compact, for people."""
    return _state.format is compact_line


def _shows_colours() -> bool:
    """Return whether standard error is a terminal, and colours are not disabled (https://no-color.org)."""
    return os.isatty(STANDARD_ERROR) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def flush(secs: float = EXIT_SECS) -> bool:
    """Wait for at most `secs` until all lines are written. Return whether they are."""
    return _state.sink is None or _state.sink.flush(secs)


atexit.register(flush)


def dropped_lines() -> int:
    """Return the number of dropped lines of this process."""
    return 0 if _state.sink is None else _state.sink.dropped


def remembered_lines(request_id: str) -> list[str]:
    """Return the latest log lines of a request and of its socket, without the access log."""
    return [line.rstrip("\n") for line in _state.remembered.find(request_id)]


def write_line(line: str) -> None:
    """Write a line that is not a record to stderr, for the operator at the terminal."""
    sink = _state.sink if isinstance(_state.sink, LogWriter) else _standard_error()
    sink.append(line)
    sink.flush(EXIT_SECS)


def log_printed_line(text: str, target: str) -> None:
    """Log a printed line: unchanged in compact mode, as a record in JSON mode."""
    _sink().append(f"{redact(text)}\n" if is_for_people() else _render("WARNING", target, text, {}))


def current_filter() -> str:
    """Return the current filter in the format of `parse_filter`, with the root's level first."""
    names = {level: name for name, level in reversed(LEVELS.items())}
    return ",".join(f"{name}={names[level]}" if name else names[level] for name, level in sorted(_state.levels.items()))


def set_filter(levels: dict[str, int]) -> None:
    """Set levels, as `parse_filter` returns them, also for existing loggers."""
    _state.levels = levels
    for target in _state.targets.values():
        target.level = _level_of(target.name, levels)
    for name in _state.named:
        logging.getLogger(name).setLevel(logging.NOTSET)
    for name in ("alembic", "sqlalchemy", "asyncio"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("nats").setLevel(logging.CRITICAL)  # the bus logs its errors
    for name, level in levels.items():
        logging.getLogger(name or None).setLevel(level)
    _state.named = {name for name in levels if name}
