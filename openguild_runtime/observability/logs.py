"""Structured logs on stderr: one path for structlog's and stdlib's records, compact lines or JSON lines.

Every record inside a request or a socket carries `request_id` (structlog's context variables). JSON mode is one
JSON object per line, tracebacks included (PROTOCOL 11.3.1). Tokens, passwords and the userinfo of URLs are redacted wherever
they might slip in.

The access log is on the path of every request. So our own records go neither through `logging` nor through a chain of
processors, and a thread writes the lines (log_writer.py): whoever reads them, or does not, never holds the loop.
"""

from __future__ import annotations

import atexit
import logging
import re
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TextIO

import msgspec
import structlog

from openguild_runtime.observability.log_writer import LogWriter

DEFAULT_FILTER = "info,openguild=info"
WRITER = "openguild.log"  # what the log says of itself
AUDIT = "openguild.audit"  # what administrators changed, a change of the filter among it
LEVELS = {"trace": 5, "debug": 10, "info": 20, "warn": 30, "warning": 30, "error": 40, "off": 100}
SECRET_KEYS = frozenset(
    {"authorization", "password", "secret", "token", "access_token", "refresh_token", "signing_key"}
)
HIDDEN = "***"
STANDARD_ERROR = 2  # its descriptor
EXIT_SECS = 0.4  # for what was logged to be written at the end, should its reader be slow

# A text may be the peer's. Each pattern looks at a character a bounded number of times: what precedes a run is bounded by a
# look back, and a run is never given back (possessive).
_PATTERNS = (
    (re.compile(r"(?i)\b(access_token|refresh_token|password|secret)=[^&\s\"']+"), r"\1=" + HIDDEN),
    (re.compile(r"(?i)\bbearer[ .][A-Za-z0-9._~+/=-]{8,}"), "Bearer " + HIDDEN),
    (re.compile(r"(?<=[A-Za-z0-9+.-]://)[^/\s@]*+@"), HIDDEN + "@"),
    (re.compile(r"(?<![A-Za-z0-9_-])[A-Za-z0-9_-]{40,}+\.[A-Za-z0-9_-]{86}\b"), HIDDEN),  # an access token
)
_TOKEN_END = re.compile(r"\.[A-Za-z0-9_-]{86}")

Record = dict[str, Any]


# --- redaction -------------------------------------------------------------------------------------


def may_contain_secret(text: str) -> bool:
    """Whether a pattern or a secret key may be in it. Both look the same within JSON and `repr`, so one look at a whole line
    stands for a look at each of its fields."""
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
    """The text without credentials."""
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

_encode = msgspec.json.Encoder(enc_hook=str).encode


def _json(record: Record) -> str:
    return _encode(record).decode() + "\n"


def _compact(record: Record) -> str:
    """`time LEVEL target: message key=value ...`, one line; a traceback follows on its own lines."""
    line = f"{record['timestamp']} {record['level']:>7} {record['target']}: {record['message']}"
    for key, value in record.items():
        if key not in _HEAD_KEYS:
            line += f" {key}={_value(value)}"
    trace = record.get("exception")
    return f"{line}\n" if trace is None else f"{line}\n{trace}\n"


_HEAD_KEYS = frozenset({"timestamp", "level", "target", "message", "exception"})


def _value(value: Any) -> str:
    text = str(value)
    return text if text and text.isprintable() and " " not in text else repr(text)


def _render(level: str, target: str, message: object, fields: Record) -> str:
    """The finished line. `message` and `target` are the names the log shippers know (PROTOCOL 11.3.1)."""
    record: Record = {"timestamp": _timestamp(), "level": level, "target": target, "message": message}
    record |= structlog.contextvars.get_contextvars()
    record |= fields
    try:
        line = _state.format(record)
        if may_contain_secret(line):
            line = _state.format(_redacted(record))
    except (ValueError, OverflowError):  # half a surrogate pair, a number beyond 64 bits: what JSON has no place for
        safe = _redacted(record)
        line = _state.format({key: ascii(safe[key]) if key in fields else safe[key] for key in record})
    return line


def _timestamp() -> str:
    """ISO 8601 in UTC; the part down to the second is made once a second."""
    second, nanos = divmod(time.time_ns(), 1_000_000_000)
    if second != _state.second:
        _state.second, _state.shown = second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
    return f"{_state.shown}.{nanos // 1000:06d}Z"


def start_failure_line(message: str) -> str:
    """The JSON line of a process that could not begin: it stands whatever the filter is, and before there is one."""
    text = redact(message).encode(errors="backslashreplace").decode()  # a path may hold half a surrogate pair
    return _json({"timestamp": _timestamp(), "level": "ERROR", "target": "openguild.server", "message": text})


# --- where they go ---------------------------------------------------------------------------------


class _Sink(Protocol):
    """Takes finished lines."""

    @property
    def dropped(self) -> int:
        """Lines that were not written."""

    def append(self, line: str) -> None:
        """Have it written."""

    def flush(self, secs: float) -> bool:
        """Wait until it is written, for `secs` at most; whether it is."""


class _Stream:
    """What is no descriptor of the system, such as a buffer in memory: it is written to at once. None: what stands in
    `sys.stderr` by then, which each test that captures it changes."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream
        self.dropped = 0

    def append(self, line: str) -> None:
        stream = self._stream or sys.stderr
        try:
            if stream is not None:
                stream.write(line)
                stream.flush()
        except (OSError, ValueError):  # whoever took the log has gone
            self.dropped += 1

    def flush(self, secs: float) -> bool:
        del secs
        return True


def _standard_error() -> _Sink:
    """Of this process; of a test that captures it, what it has put in its place."""
    if sys.stderr is not None and sys.stderr is sys.__stderr__:
        return LogWriter(STANDARD_ERROR, _describe_gap)
    return _Stream()


def _describe_gap(dropped: int) -> str:
    if _target(WRITER).level > logging.WARNING:
        return ""
    return _render("WARNING", WRITER, "log lines were dropped: nobody read them in time", {"dropped": dropped})


class _State:
    """What `configure` sets. Loggers that were used before look here too, so a change reaches them."""

    def __init__(self) -> None:
        self.levels: dict[str, int] = {"": logging.INFO}
        self.targets: dict[str, _Target] = {}
        self.named: set[str] = set()  # stdlib loggers that the filter before has set
        self.format: Callable[[Record], str] = _compact
        self.sink: _Sink | None = None
        self.second, self.shown = -1, ""


class _Target:
    """One logger name and its level in force."""

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
    """What `structlog.get_logger(name)` gives: a record below its target's level costs one comparison."""

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
    """A library's record as one of ours."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {"exception": self.formatException(record.exc_info)} if record.exc_info else {}
        return _render(record.levelname, record.name, record.getMessage(), fields)


class _Handler(logging.Handler):
    """Where the libraries' records go."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            _sink().append(self.format(record))
        except Exception:  # as logging's own handlers do: a bad record must not end whoever logs it
            self.handleError(record)


# --- setting up ------------------------------------------------------------------------------------


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


def _level_of(name: str, levels: dict[str, int]) -> int:
    """Of the longest target that the name begins with; the audit log obeys its own name alone."""
    if name == AUDIT:
        return levels.get(AUDIT, logging.INFO)
    while name and name not in levels:
        name = name.rpartition(".")[0]
    return levels[name]


def configure(log_format: str, log_filter: str = DEFAULT_FILTER, stream: TextIO | None = None) -> None:
    """Set up both structlog and logging. Raises ValueError for a bad filter, with nothing changed."""
    levels = parse_filter(log_filter)
    flush()  # what was logged so far goes where it was meant to go
    if stream is not None:
        _state.sink = _Stream(stream)
    elif not isinstance(_state.sink, LogWriter):  # which is the process's, whatever stands in `sys.stderr` by now
        _state.sink = _standard_error()
    _state.format = _json if log_format == "json" else _compact
    structlog.configure(processors=[], logger_factory=_target, wrapper_class=_Logger, cache_logger_on_first_use=True)
    handler = _Handler()
    handler.setFormatter(_Formatter())
    logging.getLogger().handlers[:] = [handler]
    set_filter(levels)


def flush(secs: float = EXIT_SECS) -> bool:
    """Wait until what was logged is written, for `secs` at most; whether it is."""
    return _state.sink is None or _state.sink.flush(secs)


atexit.register(flush)


def dropped_lines() -> int:
    """Lines of this process that found no room, or no reader."""
    return 0 if _state.sink is None else _state.sink.dropped


def write_line(line: str) -> None:
    """A line that is no record, for whoever looks at the terminal, wherever the records go."""
    sink = _state.sink if isinstance(_state.sink, LogWriter) else _standard_error()
    sink.append(line)
    sink.flush(EXIT_SECS)


def log_printed_line(text: str, target: str) -> None:
    """A line that somebody printed: as it is, but where every line is to be a record."""
    _sink().append(f"{redact(text)}\n" if _state.format is _compact else _render("WARNING", target, text, {}))


def current_filter() -> str:
    """As `parse_filter` takes it: the root's level first."""
    names = {level: name for name, level in reversed(LEVELS.items())}
    return ",".join(f"{name}={names[level]}" if name else names[level] for name, level in sorted(_state.levels.items()))


def set_filter(levels: dict[str, int]) -> None:
    """Other levels, for loggers in use as well; `levels` comes from `parse_filter`."""
    _state.levels = levels
    for target in _state.targets.values():
        target.level = _level_of(target.name, levels)
    for name in _state.named:
        logging.getLogger(name).setLevel(logging.NOTSET)
    for name in ("alembic", "sqlalchemy", "asyncio"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("nats").setLevel(logging.CRITICAL)  # its errors come to the bus, which says what they mean
    for name, level in levels.items():
        logging.getLogger(name or None).setLevel(level)
    _state.named = {name for name in levels if name}
