"""A server of the scenario: one process, or several replicas on one database and one NATS, behind one address."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import anyio
import anyio.to_thread
from anyio.abc import SocketStream

from openguild_proto.canonical.keys import encode_unpadded
from tests.support.proxy import Proxy
from tests.support.server import ServerProcess

LOST_SECS = 2  # contacts are recorded once a minute, so after this time a server always counts as lost


class Balancer(Proxy):
    """Passes each connection to the next of its ports that accepts it."""

    def __init__(self, ports: Sequence[int]) -> None:
        super().__init__(ports[0])
        self._ports = ports
        self._turn = 0

    async def connect(self) -> SocketStream:
        for _ in self._ports[1:]:
            self._turn += 1
            try:
                return await anyio.connect_tcp("127.0.0.1", self._ports[self._turn % len(self._ports)])
            except OSError:
                continue
        self._turn += 1
        return await anyio.connect_tcp("127.0.0.1", self._ports[self._turn % len(self._ports)])


class Home:
    """A server. `replicas`: its processes; operator commands go to the first one."""

    def __init__(self, name: str, directory: Path, replicas: int, **settings: object) -> None:
        self.name = name
        self.replicas = [
            ServerProcess(
                directory, SERVER_NAME=name, FEDERATION__MODE="open",
                FEDERATION__SIGNING_KEY=encode_unpadded(name.encode().ljust(32, b"k")),
                FEDERATION__ALLOW_PRIVATE_ADDRESSES="true", FEDERATION__MAX_PROPOSALS_PER_SERVER_PER_WINDOW=1_000_000,
                FEDERATION__OWNER_LOST_AFTER_SECS=LOST_SECS, MESSAGING__MAX_MESSAGES_PER_USER_PER_WINDOW=1_000_000,
                MESSAGING__MAX_MESSAGES_PER_IP_PER_WINDOW=1_000_000,
                ADMIN_SOCKET=directory / f"{name}-{number}.sock", **settings,
            )
            for number in range(replicas)
        ]  # fmt: skip
        self.balancer = Balancer([server.port for server in self.replicas])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.balancer.port}"

    def know(self, others: Sequence[Home]) -> None:
        """Tell it the addresses of the others, and to accept their guilds."""
        for server in self.replicas:
            for at, other in enumerate(others):
                server.settings[f"FEDERATION__ADDRESSES__{at}"] = f"{other.name}={other.url}"
                server.settings[f"FEDERATION__TAKE_GUILDS_FROM__{at}"] = other.name

    def command(self, *arguments: str, stdin: str = "") -> Any:
        return self.replicas[0].run_command(*arguments, stdin=stdin)

    def start(self) -> None:
        for server in self.replicas:
            server.start()

    def stop(self) -> None:
        for server in self.replicas:
            server.__exit__(None, None, None)

    async def kill_one(self, rng: Random) -> int:
        """Kill a replica and start it again. Return its number."""
        number = rng.randrange(len(self.replicas))
        await self._kill(self.replicas[number])
        await anyio.to_thread.run_sync(self.replicas[number].start)
        return number

    async def kill_all(self) -> None:
        for server in self.replicas:
            await self._kill(server)

    async def _kill(self, server: ServerProcess) -> None:
        assert server.process is not None
        server.process.kill()
        await anyio.to_thread.run_sync(server.process.wait)

    def tail(self) -> str:
        return "\n".join(server.tail() for server in self.replicas)

    def errors(self) -> list[str]:
        """Return the lines of its logs with the level ERROR."""
        records = [record for server in self.replicas for record in server.records()]
        return [record["message"] for record in records if record["level"] == "ERROR"]
