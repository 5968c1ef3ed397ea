"""Addresses, and the end of a transport."""

from __future__ import annotations

import pickle
import ssl
from contextlib import suppress
from pathlib import Path

import anyio
import pytest
import trustme
from anyio.abc import ByteStream, SocketAttribute
from anyio.streams.tls import TLSStream

from openguild_proto import Response
from openguild_runtime.client import Client
from openguild_runtime.client.transport import (
    TRANSPORT_ERRORS,
    Address,
    NotLoggedIn,
    OutcomeUnknown,
    TlsFailed,
    close,
    connect_tcp,
    receive,
)
from tests.support.scripted import scripted
from tests.support.waiting import eventually, free_port

pytestmark = pytest.mark.anyio


def test_addresses() -> None:
    assert Address.of("https://example.org") == Address("example.org", 443, tls=True)
    assert Address.of("http://example.org:81/") == Address("example.org", 81, tls=False)
    assert Address.of("http://[::1]:8080").authority == "[::1]:8080"
    for bad in ("example.org", "ftp://example.org", "http://example.org/path", "http://", "http://example.org?a=b"):
        with pytest.raises(ValueError, match="address"):
            Address.of(bad)


def test_a_user_in_an_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(ValueError, match="must not contain a user") as refusal:
        Address.of("http://alice:secret@example.org")
    assert "secret" not in str(refusal.value)


async def test_a_server_that_says_nothing_is_told_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openguild_runtime.client.connection_pool.ATTEMPT_SECS", 0.1)
    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
        Client(f"http://127.0.0.1:{listener.extra(SocketAttribute.local_port)}", retry_secs=0) as client,
    ):
        with pytest.raises(OutcomeUnknown, match=r"^no response in time$"):
            await client.login("alice", "a long password")


async def test_a_refused_connection_is_reported() -> None:
    with pytest.raises(TRANSPORT_ERRORS):
        await connect_tcp(Address("127.0.0.1", free_port(), tls=False))


async def test_a_port_without_tls_is_told_at_once() -> None:
    async with scripted(lambda request: Response.text("ok")) as server:
        address = server.url.replace("http://", "https://")
        with anyio.fail_after(10), pytest.raises(TlsFailed, match=r"127.0.0.1:\d+ does not speak TLS"):
            await Client(address, retry_secs=60).login("alice", "a long password")


async def test_a_certificate_of_nobody_is_told_at_once() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost").configure_cert(context)

    async def shake_hands(stream: ByteStream) -> None:
        with suppress(ssl.SSLError, anyio.BrokenResourceError, anyio.EndOfStream):  # the client does not like it
            await TLSStream.wrap(stream, server_side=True, ssl_context=context)
        await stream.aclose()

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, shake_hands)
        port = listener.extra(SocketAttribute.local_port)
        one = Client(f"https://localhost:{port}", retry_secs=60)
        refused = r"certificate of localhost:\d+ is not trusted: .*; for your own CA, set .* SSL_CERT_FILE to its certificate file$"
        with anyio.fail_after(10), pytest.raises(TlsFailed, match=refused):
            await one.login("alice", "a long password")
        async with scripted(lambda request: Response.json({"status": "live"})) as other:
            two = Client((f"https://localhost:{port}", other.url))
            assert await two.request("GET", "/live", authorized=False) == {"status": "live"}
            await two.aclose()
        await one.aclose()
        tasks.cancel_scope.cancel()


async def test_a_silent_tls_connection_closes_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    shaken = anyio.Event()

    async def say_nothing(stream: ByteStream) -> None:
        try:
            await TLSStream.wrap(stream, server_side=True, ssl_context=context)
            shaken.set()
            await anyio.sleep_forever()
        finally:
            await anyio.aclose_forcefully(stream)

    async def read(stream: ByteStream) -> None:
        with pytest.raises(TRANSPORT_ERRORS):
            await receive(stream)

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, say_nothing)
        stream = await connect_tcp(Address("localhost", listener.extra(SocketAttribute.local_port), tls=True))
        with anyio.fail_after(10):
            await shaken.wait()
            async with anyio.create_task_group() as reading:
                reading.start_soon(read, stream)
                await anyio.wait_all_tasks_blocked()
                await close(stream)
        tasks.cancel_scope.cancel()


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


async def test_a_request_without_a_session_is_a_401_that_passes_between_processes() -> None:
    failure = pickle.loads(pickle.dumps(NotLoggedIn()))
    assert isinstance(failure, RuntimeError)
    assert (type(failure), failure.status, str(failure)) == (NotLoggedIn, 401, "401 unauthorized: log in first")
