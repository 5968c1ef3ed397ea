"""Names of other servers, whose name servers may not answer."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import anyio
import pytest

from openguild_runtime.federation.name_lookups import NameLookups

pytestmark = pytest.mark.anyio
SILENT, OTHER = "silent.example", "other.example"


class NameServer:
    """Answers for one name, and for the other one when it is told to."""

    def __init__(self) -> None:
        self.answers = threading.Event()
        self.asked: list[bytes] = []

    def __call__(self, host: bytes, port: int, **_: Any) -> list[tuple[Any, ...]]:
        self.asked.append(host)
        if host == SILENT.encode():
            self.answers.wait(30)
            raise socket.gaierror("no such name")
        address = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("203.0.113.9", port))
        return [address, address]


@pytest.fixture
def names() -> Iterator[NameServer]:
    server = NameServer()
    yield server
    server.answers.set()


async def test_addresses_are_resolved_without_a_name_server() -> None:
    lookups = NameLookups()
    assert await lookups.resolve("127.0.0.1", 80) == ["127.0.0.1"]
    assert await lookups.resolve("::1", 80) == ["::1"]


async def test_names_that_nobody_answers_hold_up_no_other(names: NameServer) -> None:
    lookups = NameLookups(names)
    async with anyio.create_task_group() as tasks:
        for _ in range(50):
            tasks.start_soon(lookups.resolve, SILENT, 443)
        with anyio.fail_after(10):
            while len(names.asked) < 50:
                await anyio.lowlevel.checkpoint()
            assert await lookups.resolve(OTHER, 443) == ["203.0.113.9"]
            assert await anyio.getaddrinfo("localhost", 80), "as the database's name is resolved"
        tasks.cancel_scope.cancel()


async def test_a_lookup_that_is_given_up_has_its_place_until_it_ends(names: NameServer) -> None:
    lookups = NameLookups(names, at_once=1)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lookups.resolve, SILENT, 443)
        with anyio.fail_after(10):
            while not names.asked:
                await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
    with anyio.move_on_after(0.05) as waiting:
        await lookups.resolve(OTHER, 443)
    assert waiting.cancelled_caught
    assert names.asked == [SILENT.encode()]
    names.answers.set()
    with anyio.fail_after(10):
        assert await lookups.resolve(OTHER, 443) == ["203.0.113.9"]


async def test_a_name_without_an_address(names: NameServer) -> None:
    names.answers.set()
    with pytest.raises(OSError, match="no such name"):
        await NameLookups(names).resolve(SILENT, 443)
