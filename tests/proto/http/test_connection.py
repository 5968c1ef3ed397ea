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


@pytest.mark.parametrize("more", [b"", b"connection: keep-alive, x\r\n"], ids=["prepared lines", "as h11 writes them"])
@pytest.mark.parametrize(("status", "length"), [(204, None), (205, b"0"), (304, None), (404, b"4")])
def test_some_responses_have_no_content(status: int, length: bytes | None, more: bytes) -> None:
    conn = connection()
    conn.receive_data(HEAD + more + b"\r\n", 0.0)
    conn.respond(Response(status, b"body"), 0.0)
    head, _, content = b"".join(conn.data_to_send()).partition(b"\r\n\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    assert fields.get(b"content-length") == length
    assert content == (b"body" if status == 404 else b"")


@pytest.mark.parametrize("more", [b"", b"connection: keep-alive, x\r\n"], ids=["prepared lines", "as h11 writes them"])
@pytest.mark.parametrize("close", [False, True])
def test_upgrade_required_names_upgrade_as_an_option_of_the_connection(more: bytes, close: bool) -> None:
    """RFC 9110 7.8: otherwise a proxy passes on what is meant for it alone."""
    conn = connection()
    conn.receive_data(HEAD + more + b"\r\n", 0.0)
    conn.respond(Response(426, headers=(("upgrade", "websocket"),), close=close), 0.0)
    lines = b"".join(conn.data_to_send()).lower().split(b"\r\n")
    values = b", ".join(line.partition(b": ")[2] for line in lines if line.startswith(b"connection: "))
    assert set(values.split(b", ")) == ({b"close", b"upgrade"} if close else {b"upgrade"})
    assert conn.is_over is close
