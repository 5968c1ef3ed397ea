"""Formats, filters and redaction of the log."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterator

import pytest
import structlog

from openguild_runtime import logs


@pytest.fixture
def logged() -> Iterator[Callable[..., io.StringIO]]:
    """Configure logging into a buffer; what pytest had set up comes back afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level

    def configure(log_format: str = "json", log_filter: str = "info") -> io.StringIO:
        stream = io.StringIO()
        logs.configure(log_format, log_filter, stream)
        return stream

    yield configure
    root.handlers[:] = handlers
    root.setLevel(level)
    for name in ("openguild", "openguild.http"):
        logging.getLogger(name).setLevel(logging.NOTSET)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def test_json_lines_hold_context_and_tracebacks(logged: Callable[..., io.StringIO]) -> None:
    stream = logged()
    structlog.contextvars.bind_contextvars(request_id="r1")
    try:
        raise RuntimeError('broken "quote"\nnew line')
    except RuntimeError:
        structlog.get_logger("openguild.test").exception("failed", number=1)
    logging.getLogger("some.library").warning("plain %s", "record")
    first, second = (json.loads(line) for line in stream.getvalue().splitlines())
    assert (first["level"], first["target"], first["message"], first["number"]) == (
        "ERROR",
        "openguild.test",
        "failed",
        1,
    )
    assert first["request_id"] == second["request_id"] == "r1"
    assert "RuntimeError" in first["exception"]
    assert second["message"] == "plain record"


def test_filter_by_target(logged: Callable[..., io.StringIO]) -> None:
    stream = logged("compact", "warn,openguild.http=debug")
    structlog.get_logger("openguild.http").debug("shown")
    structlog.get_logger("openguild").info("hidden")
    logging.getLogger("other").warning("shown too")
    assert "hidden" not in stream.getvalue()
    assert stream.getvalue().count("shown") == 2


@pytest.mark.parametrize("log_filter", ["off", "trace", "off,openguild.http=error"])
def test_every_level_can_be_named(log_filter: str, logged: Callable[..., io.StringIO]) -> None:
    stream = logged("compact", log_filter)
    structlog.get_logger("openguild.http").error("shown unless off")
    assert bool(stream.getvalue()) is (log_filter != "off")


@pytest.mark.parametrize("text", ["loud", "openguild=", "=info", "a=b=info,x=verbose"])
def test_a_bad_filter_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="OPENGUILD_LOG"):
        logs.parse_filter(text)


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("GET /channels/x/ws?access_token=abc.def&since=1", "abc.def"),
        ("Authorization: Bearer abcdefghijklmnop", "abcdefghijklmnop"),
        ("openguild.v1, bearer.abcdefghijklmnop", "abcdefghijklmnop"),
        ("connecting to postgresql://user:pa55@host/db", "pa55"),
        ("nats://token@host:4222", "token@"),
    ],
)
def test_credentials_are_redacted(text: str, hidden: str, logged: Callable[..., io.StringIO]) -> None:
    stream = logged()
    structlog.get_logger("t").info(text, detail=text, password="hunter2")
    assert hidden not in stream.getvalue()
    assert "hunter2" not in stream.getvalue()
    assert "***" in stream.getvalue()
