"""Formats, filters and redaction of the log."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog

from openguild_runtime.observability import log_context, logs
from tests.support.server import ROOT


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
    logs.configure("compact")
    root.handlers[:] = handlers
    root.setLevel(level)
    for name in ("openguild", "openguild.http"):
        logging.getLogger(name).setLevel(logging.NOTSET)
    structlog.reset_defaults()


def test_json_lines_hold_context_and_tracebacks(logged: Callable[..., io.StringIO]) -> None:
    stream = logged()
    with log_context.bound_request("r1"):
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


@pytest.mark.parametrize("process", [{}, {"worker": 2}])
@pytest.mark.parametrize("log_format", ["json", "compact"])
def test_the_access_line_is_what_any_record_would_be(
    log_format: str, process: dict[str, int], logged: Callable[..., io.StringIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "process_fields", process)
    stream = logged(log_format)
    request_id = "0b1e6a5e-3c0e-4b7e-9b1e-6a5e3c0e4b7e"
    fields: dict[str, Any] = {"method": "GET", "route": "/users/me", "status": 200, "latency_ms": 1.25, "client": "::1"}
    logs.log_access(request_id, refused={}, **fields)
    with log_context.bound_request(request_id):
        structlog.get_logger("openguild.http").info(logs.ACCESS, **fields)
    access, plain = (line[line.index("Z") :] for line in stream.getvalue().splitlines())
    assert access == plain
    assert ("worker" in access) is ("worker" in process)


def test_the_access_line_hides_a_secret_in_the_request_id(logged: Callable[..., io.StringIO]) -> None:
    stream = logged("json")
    token = "a" * 40 + "." + "b" * 86
    logs.log_access(token, method="GET", route="/", status=200, latency_ms=0.1, client="::1", refused={})
    assert token not in stream.getvalue()
    assert json.loads(stream.getvalue())["request_id"] == logs.HIDDEN


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


def test_level_and_format_change_for_loggers_in_use(logged: Callable[..., io.StringIO]) -> None:
    own, foreign = structlog.get_logger("openguild.used"), logging.getLogger("openguild.foreign")
    stream = logged("compact", "info")
    own.info("one")
    logs.set_filter(logs.parse_filter("warn,openguild=debug"))
    own.debug("two")
    foreign.debug("three")
    logs.set_filter(logs.parse_filter("info"))
    own.debug("hidden")
    foreign.debug("hidden")
    assert [line.rpartition(" ")[2] for line in stream.getvalue().splitlines()] == ["one", "two", "three"]
    stream = logged("json", "info")
    own.info("four")
    assert json.loads(stream.getvalue())["message"] == "four"


@pytest.mark.parametrize("log_filter", ["error", "off", "off,openguild=error"])
def test_only_its_own_name_silences_the_audit_log(log_filter: str, logged: Callable[..., io.StringIO]) -> None:
    audit = structlog.get_logger(logs.AUDIT)
    stream = logged("compact", "info")
    logs.set_filter(logs.parse_filter(log_filter))
    audit.info("kept")
    structlog.get_logger("openguild.server").warning("hidden")
    assert (stream.getvalue().count("kept"), stream.getvalue().count("hidden")) == (1, 0)
    logs.set_filter(logs.parse_filter(f"info,{logs.AUDIT}=off"))
    audit.error("hidden")
    assert stream.getvalue().count("hidden") == 0


@pytest.mark.parametrize("text", ["info", "off", "warn,openguild.http=debug,sqlalchemy=trace"])
def test_the_current_filter_is_returned_as_given(text: str, logged: Callable[..., io.StringIO]) -> None:
    logged("compact", text)
    assert logs.current_filter() == text
    assert logs.parse_filter(logs.current_filter()) == logs.parse_filter(text)


PROGRAM = """
import threading, warnings, sys, structlog
from openguild_runtime.observability import logs
from openguild_runtime.process import missing_descriptors, standard_streams
missing_descriptors.open_missing_descriptors()
logs.configure("json", "info")
standard_streams.redirect_stderr_to_log()
log = structlog.get_logger("openguild.test")
class Failing:
    def __del__(self):
        raise ValueError("in a finalizer")
def fail():
    raise KeyError("in a thread")
"""


def run_program(text: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM + text],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=ROOT,
        **more,
    )


def test_printed_text_is_logged_and_crashes_show_last_lines() -> None:
    ended = run_program(
        """
log.info("begun")
warnings.warn("odd")
print("by a library\\nin two lines", file=sys.stderr)
Failing()
thread = threading.Thread(target=fail); thread.start(); thread.join()
log.info("the last line")
raise RuntimeError("a defect")
"""
    )
    assert ended.returncode == 1
    records = [json.loads(line) for line in ended.stderr.splitlines()]
    messages = [record["message"] for record in records]
    assert (messages[0], messages[2], messages[3], messages[-2]) == (
        "begun", "by a library", "in two lines", "the last line",
    )  # fmt: skip
    assert "odd" in messages[1]
    told = [record["exception"].splitlines()[-1] for record in records if "exception" in record]
    assert told == ["ValueError: in a finalizer", "KeyError: 'in a thread'", "RuntimeError: a defect"]


def test_a_process_exits_although_its_log_is_not_read() -> None:
    """Its pipe is full, and it still has many lines to write."""
    reader, writer = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM + "\nfor n in range(50_000): log.info('line', n=n)\nraise RuntimeError"],
        stderr=writer,
        cwd=ROOT,
    )
    os.close(writer)
    try:
        assert process.wait(30) == 1
    finally:
        process.kill()
        os.close(reader)


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_closed_descriptors_are_opened(closed: str) -> None:
    ended = subprocess.run(
        ["bash", "-c", f'exec "$@" {closed}', "bash", sys.executable, "-c", PROGRAM + """
import os, socket
log.error("said"); print("said too", file=sys.stderr); print("and this")
logs.flush()
sys.exit(0 if socket.socket().fileno() > 2 and all(os.path.exists(f"/proc/self/fd/{n}") for n in range(3)) else 9)
"""], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert ("said" in ended.stderr) == ("2>&-" not in closed)


def test_no_line_of_other_threads_is_lost(logged: Callable[..., io.StringIO]) -> None:
    stream = logged()
    log = structlog.get_logger("openguild.test")

    def write(thread: int) -> None:
        for number in range(200):
            log.info("line", thread=thread, number=number)

    async def all_at_once() -> None:
        async with asyncio.TaskGroup() as tasks:
            for thread in range(4):
                tasks.create_task(asyncio.to_thread(write, thread))
            for number in range(200):
                log.info("line", thread=-1, number=number)
                await asyncio.sleep(0)

    asyncio.run(all_at_once())
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert {(line["thread"], line["number"]) for line in lines} == {
        (thread, number) for thread in range(-1, 4) for number in range(200)
    }
    assert len(lines) == 1_000


def test_values_that_json_cannot_hold_are_logged(logged: Callable[..., io.StringIO]) -> None:
    stream = logged()
    structlog.get_logger("t").info("odd", half="\ud800", large=2**70, token="abc")
    record = json.loads(stream.getvalue())
    assert (record["message"], record["half"], record["large"]) == ("odd", "'\\ud800'", str(2**70))
    assert record["token"] == "'***'"


def test_credentials_within_structures_are_redacted(logged: Callable[..., io.StringIO]) -> None:
    stream = logged()
    structlog.get_logger("t").info(
        "x", request={"password": "pa55"}, urls={"of": ["nats://u:pa55@host"]}, kept=[1, None]
    )
    record = json.loads(stream.getvalue())
    assert (record["request"], record["urls"]) == ({"password": "***"}, {"of": ["nats://***@host"]})
    assert record["kept"] == [1, None]


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
        ("1.HTTP://user:pa55@host", "pa55"),
        (f"é--{'a' * 60}.{'b' * 86} is no word alone", "aaa"),
    ],
)
def test_credentials_are_redacted(text: str, hidden: str, logged: Callable[..., io.StringIO]) -> None:
    stream = logged()
    structlog.get_logger("t").info(text, detail=text, password="hunter2")
    assert hidden not in stream.getvalue()
    assert "hunter2" not in stream.getvalue()
    assert "***" in stream.getvalue()
