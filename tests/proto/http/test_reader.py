"""What a request takes of memory before it is whole."""

from __future__ import annotations

import tracemalloc

import pytest

from openguild_proto.events import RequestReceived
from tests.support.wire import HEAD, connection

BODY = bytes(range(256)) * 80
LENGTH = b"Content-Length: %d\r\n\r\n" % len(BODY)
CHUNK = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(BODY)


@pytest.mark.parametrize(
    ("head", "end"),
    [(HEAD + LENGTH, b""), (HEAD.replace(b"HTTP/1.1", b"HTTP/1.0") + LENGTH, b""), (HEAD + CHUNK, b"\r\n0\r\n\r\n")],
    ids=["quick", "through h11", "chunked"],
)
def test_a_body_in_single_bytes_takes_the_memory_that_is_counted(head: bytes, end: bytes) -> None:
    """The limit of bytes over all connections would hold forty times as many, if each piece were kept by itself."""
    conn = connection()
    conn.receive_data(head.replace(b"GET", b"POST"), 0.0)
    tracemalloc.start()
    try:
        for place in range(len(BODY) - 1):
            assert conn.receive_data(BODY[place : place + 1], 0.0) == []
        assert conn.unfinished_body_bytes == len(BODY) - 1
        assert tracemalloc.get_traced_memory()[0] < 2 * len(BODY)
    finally:
        tracemalloc.stop()
    (event,) = conn.receive_data(BODY[-1:] + end, 0.0)
    assert isinstance(event, RequestReceived)
    assert event.request.body == BODY
    assert conn.unfinished_body_bytes == 0
