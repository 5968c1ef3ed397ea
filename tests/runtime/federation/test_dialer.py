"""Where a connection goes: addresses that are checked, names that change, certificates."""

from __future__ import annotations

import gc
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
import pytest
import trustme
from anyio.abc import ByteStream
from anyio.streams.tls import TLSStream

from openguild_proto.effects.federation import PeerUnavailable
from openguild_runtime.federation.dialer import Dialer, Resolve, tls_context

pytestmark = pytest.mark.anyio


def resolving(*answers: list[str]) -> tuple[Resolve, list[str]]:
    """A name server with an answer for each question, and the names it was asked for."""
    asked: list[str] = []
    left = list(answers)

    async def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        if not left:
            raise socket.gaierror("no such name")
        return left.pop(0)

    return resolve, asked


def dialer(*answers: list[str], allow_private: bool = False) -> tuple[Dialer, list[str]]:
    resolve, asked = resolving(*answers)
    return Dialer(lambda: tls_context(None), allow_private=allow_private, resolve=resolve), asked


@asynccontextmanager
async def listening(handler: Callable[[ByteStream], object] | None = None) -> AsyncIterator[int]:
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")

    async def serve(stream: ByteStream) -> None:
        async with stream:
            await stream.send(b"hello")

    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, handler or serve)
        yield listener.extra(anyio.abc.SocketAttribute.local_port)
        tasks.cancel_scope.cancel()


async def reason(dialer: Dialer, url: str) -> str:
    with pytest.raises(PeerUnavailable) as unavailable:
        await dialer.connect("a.example", url)
    return unavailable.value.reason


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "::1", "10.0.0.1", "169.254.169.254", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "fe80::1%lo"]
)
async def test_names_that_lead_inside_are_refused(address: str) -> None:
    async with listening() as port:
        connect, _ = dialer([address])
        assert await reason(connect, f"http://a.example:{port}") == "address"


async def test_of_several_addresses_those_inside_are_passed_over() -> None:
    connect, _ = dialer(["10.0.0.1", "127.0.0.1"])
    assert await reason(connect, "http://a.example") == "address"


async def test_a_name_without_an_address() -> None:
    connect, _ = dialer()
    assert await reason(connect, "https://a.example") == "address"
    connect, _ = dialer([])
    assert await reason(connect, "https://a.example") == "address"


async def test_the_address_that_was_checked_is_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name is resolved once, so it cannot lead inside when it is used."""
    connected: list[str] = []

    async def note(host: str, port: int) -> ByteStream:
        connected.append(host)
        raise OSError("not really")

    monkeypatch.setattr(anyio, "connect_tcp", note)
    connect, asked = dialer(["8.8.8.8"], ["127.0.0.1"])
    assert await reason(connect, "https://a.example") == "connect"
    assert (asked, connected) == (["a.example"], ["8.8.8.8"])


async def test_private_addresses_where_they_are_allowed() -> None:
    async with listening() as port:
        connect, _ = dialer(["127.0.0.1"], allow_private=True)
        async with await connect.connect("a.example", f"http://a.example:{port}") as stream:
            assert await stream.receive() == b"hello"


async def test_nobody_listens() -> None:
    async with listening() as port:
        pass
    connect, _ = dialer(["127.0.0.1"], allow_private=True)
    assert await reason(connect, f"http://a.example:{port}") == "connect"


@pytest.mark.parametrize(
    ("issued", "trusted", "expected"),
    [("a.example", True, None), ("b.example", True, "tls"), ("a.example", False, "tls")],
)
async def test_certificates_are_for_the_name(tmp_path: Path, issued: str, trusted: bool, expected: str | None) -> None:
    authority = trustme.CA()
    bundle = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(bundle)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(issued).configure_cert(context)

    async def serve(stream: ByteStream) -> None:
        async with stream:
            with suppress(
                ssl.SSLError, anyio.BrokenResourceError, anyio.EndOfStream
            ):  # it does not like the certificate
                async with await TLSStream.wrap(stream, server_side=True, ssl_context=context) as secure:
                    await secure.send(b"hello")

    resolve, _ = resolving(["127.0.0.1"])
    connect = Dialer(
        lambda: tls_context(bundle if trusted else None),
        allow_private=True,
        resolve=resolve,
    )
    async with listening(serve) as port:
        if expected is not None:
            assert await reason(connect, f"https://a.example:{port}") == expected
            return
        async with await connect.connect("a.example", f"https://a.example:{port}") as stream:
            assert await stream.receive() == b"hello"


async def test_a_listener_that_speaks_no_tls() -> None:
    async with listening() as port:
        connect, _ = dialer(["127.0.0.1"], allow_private=True)
        assert await reason(connect, f"https://a.example:{port}") == "tls"


async def test_a_handshake_that_is_given_up_ends_its_connection() -> None:
    giving_up, ended = anyio.CancelScope(), anyio.Event()

    async def silent(stream: ByteStream) -> None:
        async with stream:
            with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                while await stream.receive():
                    giving_up.cancel()
        ended.set()

    connect, _ = dialer(["127.0.0.1"], allow_private=True)
    gc.disable()  # nothing else may end it
    try:
        async with listening(silent) as port:
            with giving_up:
                await connect.connect("a.example", f"https://a.example:{port}")
            with anyio.fail_after(5):
                await ended.wait()
    finally:
        gc.enable()
