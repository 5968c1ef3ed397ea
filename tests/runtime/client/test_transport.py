"""Addresses, and the end of a transport."""

from __future__ import annotations

import anyio
import pytest

from openguild_proto import Response
from openguild_runtime.client.transport import TRANSPORT_ERRORS, Address, close, connect_tcp, receive
from tests.support.scripted import scripted
from tests.support.waiting import eventually, free_port

pytestmark = pytest.mark.anyio


def test_addresses() -> None:
    assert Address.of("https://example.org") == Address("example.org", 443, tls=True)
    assert Address.of("http://example.org:81/") == Address("example.org", 81, tls=False)
    assert Address.of("http://[::1]:8080").authority == "[::1]:8080"
    for bad in ("example.org", "ftp://example.org", "http://example.org/path", "http://"):
        with pytest.raises(ValueError, match="address"):
            Address.of(bad)


async def test_a_refused_connection_is_reported() -> None:
    with pytest.raises(TRANSPORT_ERRORS):
        await connect_tcp(Address("127.0.0.1", free_port(), tls=False))


async def test_receive_returns_no_bytes_at_the_end() -> None:
    async with scripted(lambda request: Response.text("ok")) as server:
        stream = await connect_tcp(Address.of(server.url))
        await stream.send(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        with anyio.fail_after(10):
            answer = b""
            while data := await receive(stream):
                answer += data
        assert answer.startswith(b"HTTP/1.1 200")
        await close(stream)
        await close(stream)
        await eventually(lambda: server.ended == 1)
