"""The faults: of servers, PostgreSQL, nats-server and the links between them."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import anyio
import anyio.to_thread

from openguild_runtime.embedded import EmbeddedNats, EmbeddedPostgres
from tests.support.proxy import Proxy
from tests.support.server import ServerProcess


@dataclass
class Parts:
    """All processes and links. The server of each number has its own links to PostgreSQL and NATS."""

    postgres: EmbeddedPostgres
    nats: EmbeddedNats
    servers: list[ServerProcess] = field(default_factory=list)
    to_postgres: list[Proxy] = field(default_factory=list)
    to_nats: list[Proxy] = field(default_factory=list)


async def _kill_server(parts: Parts, number: int) -> None:
    server = parts.servers[number]
    await anyio.to_thread.run_sync(server.stop, signal.SIGKILL)
    await anyio.sleep(1)
    await anyio.to_thread.run_sync(server.start)


async def _kill_postgres(parts: Parts, number: int) -> None:
    await anyio.to_thread.run_sync(parts.postgres.kill)
    await anyio.sleep(1)
    await anyio.to_thread.run_sync(parts.postgres.restart)


async def _kill_nats(parts: Parts, number: int) -> None:
    await anyio.to_thread.run_sync(parts.nats.kill)
    await anyio.sleep(3)
    await anyio.to_thread.run_sync(parts.nats.restart)


async def _kill_both(parts: Parts, number: int) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_kill_nats, parts, number)
        tasks.start_soon(_kill_server, parts, number)


async def _freeze(parts: Parts, number: int) -> None:
    process = parts.servers[number].process
    assert process is not None
    process.send_signal(signal.SIGSTOP)
    await anyio.sleep(10)
    process.send_signal(signal.SIGCONT)


async def _cut_postgres(parts: Parts, number: int) -> None:
    await _broken(parts.to_postgres[number], parts.to_postgres[number].cut, 3)


async def _lose_postgres(parts: Parts, number: int) -> None:
    await _broken(parts.to_postgres[number], parts.to_postgres[number].black_hole, 8)


async def _lose_nats(parts: Parts, number: int) -> None:
    await _broken(parts.to_nats[number], parts.to_nats[number].black_hole, 10)


async def _slow_postgres(parts: Parts, number: int) -> None:
    await _broken(parts.to_postgres[number], lambda: setattr(parts.to_postgres[number], "delay_secs", 0.1), 5)


async def _broken(proxy: Proxy, breaks: Callable[[], None], secs: float) -> None:
    breaks()
    await anyio.sleep(secs)
    proxy.heal()


async def _roll(parts: Parts, number: int) -> None:
    for server in parts.servers:
        status = await anyio.to_thread.run_sync(server.stop)
        assert status == 0, server.tail()
        await anyio.to_thread.run_sync(server.start)


FAULTS: dict[str, Callable[[Parts, int], Awaitable[None]]] = {
    "kill -9 a server": _kill_server,
    "kill -9 PostgreSQL": _kill_postgres,
    "kill -9 nats-server": _kill_nats,
    "SIGSTOP a server for 10 s": _freeze,
    "cut a server from PostgreSQL": _cut_postgres,
    "black-hole a server's NATS": _lose_nats,
    "slow PostgreSQL": _slow_postgres,
    "rolling restart": _roll,
    "black-hole a server's PostgreSQL": _lose_postgres,
    "kill -9 a server and nats-server": _kill_both,
}
"""By name; each is given the number of a server and returns when the fault is over."""
