"""The forms of a log line."""

from __future__ import annotations

import re

import pytest

from openguild_runtime.observability.log_lines import coloured, compact_line

HEAD = {"timestamp": "2026-01-01T00:00:00.000000Z", "level": "INFO", "target": "openguild.http", "message": "done"}


def test_the_request_id_comes_last_and_the_traceback_below() -> None:
    line = compact_line(
        {**HEAD, "request_id": "abc", "route": "/version", "exception": "Traceback\n  x", "text": "a b"}
    )
    assert line == (
        "2026-01-01T00:00:00.000000Z    INFO openguild.http: done route=/version text='a b' request_id=abc\nTraceback\n  x\n"
    )


@pytest.mark.parametrize(
    ("record", "shown"),
    [
        (HEAD, "<2>2026-01-01T00:00:00.000000Z<0>    INFO openguild.http: done\n"),
        (HEAD | {"level": "WARNING"}, "<2>2026-01-01T00:00:00.000000Z<0> <33>WARNING<0> openguild.http: done\n"),
        (HEAD | {"level": "ERROR"}, "<2>2026-01-01T00:00:00.000000Z<0>   <31>ERROR<0> openguild.http: done\n"),
        (
            HEAD | {"request_id": "abc", "route": "/"},
            "<2>2026-01-01T00:00:00.000000Z<0>    INFO openguild.http: done route=/<2> request_id=abc<0>\n",
        ),
    ],
)
def test_colours_are_for_what_is_wrong(record: dict[str, str], shown: str) -> None:
    assert re.sub(r"\x1b\[(\d+)m", r"<\1>", coloured(compact_line(record))) == shown


@pytest.mark.parametrize("text", ["", "\n", "one", "ERROR", " ", "\n\n", "Traceback:\n x request_id=1\n y\n"])
def test_any_text_keeps_its_characters(text: str) -> None:
    assert re.sub(r"\x1b\[\d+m", "", coloured(text)).split() == text.split()
