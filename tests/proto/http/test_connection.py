"""The encoding of responses."""

from __future__ import annotations

import pytest

from openguild_proto import Response
from tests.support.wire import HEAD, connection


@pytest.mark.parametrize(
    ("status", "line"),
    [
        (200, b"HTTP/1.1 200 OK"),
        (302, b"HTTP/1.1 302 Found"),
        (308, b"HTTP/1.1 308 Permanent Redirect"),
        (502, b"HTTP/1.1 502 Bad Gateway"),
        (599, b"HTTP/1.1 599 "),
    ],
)
def test_the_status_line_has_the_reason_phrase(status: int, line: bytes) -> None:
    conn = connection()
    conn.receive_data(HEAD + b"\r\n", 0.0)
    conn.respond(Response(status), 0.0)
    assert b"".join(conn.data_to_send()).partition(b"\r\n")[0] == line
