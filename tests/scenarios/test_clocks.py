"""Two replicas whose clocks differ, on one PostgreSQL: they agree about everything that expires."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager

import anyio
import httpx
import pytest
import structlog

from openguild_runtime.bus.local import LocalBus
from openguild_runtime.config.server_config import ServerConfig
from openguild_runtime.net.listener import accept_forever, open_listener
from openguild_runtime.server.app import Server
from openguild_runtime.server.timekeeper import WARN_SECS
from openguild_runtime.system.clocks_and_entropy import ClocksAndEntropy
from tests.support.chat import PASSWORD
from tests.support.server import SIGNING_KEY
from tests.support.waiting import eventually

pytestmark = pytest.mark.anyio
HOUR = 3_600.0


class Clock:
    """A machine's clock that is `ahead` seconds off."""

    def __init__(self, ahead: float) -> None:
        self.ahead = ahead

    def __call__(self) -> float:
        return time.time() + self.ahead


class Replica:
    def __init__(self, server: Server, clock: Clock, http: httpx.AsyncClient) -> None:
        self.server, self.clock, self.http = server, clock, http

    async def ask(self, method: str, path: str, body: object = None, token: str | None = None) -> httpx.Response:
        headers = {"authorization": f"Bearer {token}"} if token is not None else {}
        return await self.http.request(method, path, json=body, headers=headers)

    async def register(self, name: str) -> None:
        assert (await self.ask("POST", "/users/register", {"username": name, "password": PASSWORD})).status_code == 201

    async def login(self, name: str, password: str = PASSWORD) -> httpx.Response:
        body = {"identifier": name, "secret": password, "device": {"device_id": "x"}}
        return await self.ask("POST", "/sessions/login", body)

    async def refresh(self, token: str) -> httpx.Response:
        return await self.ask("POST", "/sessions/refresh", {"refresh_token": token})


@asynccontextmanager
async def replicas(url: str, *skews: float) -> AsyncIterator[list[Replica]]:
    config = ServerConfig.model_validate({"session": {"signing_key": SIGNING_KEY}, "database_url": url})
    found = []
    async with anyio.create_task_group() as tasks:
        with ExitStack() as listeners:
            for skew in skews:
                clock = Clock(skew)
                server = Server(config, tasks, 1_000, sources=ClocksAndEntropy(wall=clock), bus=LocalBus())
                await server.start_parts()
                listener = listeners.enter_context(open_listener("127.0.0.1", 0))
                tasks.start_soon(
                    accept_forever,
                    listener,
                    server.connection_server.serve,
                    server.descriptors.ran_out,
                    time.monotonic,
                )
                port = listener.getsockname()[1]
                http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, verify=False, timeout=10)
                found.append(Replica(server, clock, http))
            for replica in found:
                await eventually(lambda server=replica.server: server.lifecycle.has_started)
            try:
                yield found
            finally:
                for replica in found:
                    await replica.http.aclose()
                    replica.server.connection_server.end_all()
                    await replica.server.storage.aclose()
                tasks.cancel_scope.cancel()


@pytest.mark.parametrize("skew", [15.0, -15.0, HOUR, -HOUR])
async def test_replicas_whose_clocks_differ_agree(database_url: str, skew: float) -> None:
    async with replicas(database_url, 0.0, skew) as (good, off):
        await good.register("alice")
        for first, second in ((good, off), (off, good)):
            pair = (await first.login("alice")).json()
            renewed = (await first.refresh(pair["refresh_token"])).json()
            again = await second.refresh(pair["refresh_token"])
            assert again.status_code == 200, "its grace is not over"
            assert again.json()["refresh_token"] == renewed["refresh_token"]
            token = renewed["access_token"]
            assert (await second.ask("GET", "/users/me", token=token)).status_code == 200
            guild = (await first.ask("POST", "/guilds", {"name": "g"}, token)).json()["guild_id"]
            made = await first.ask("POST", f"/guilds/{guild}/invites", {"max_uses": 1, "expires_in_secs": 10}, token)
            listed = (await second.ask("GET", f"/guilds/{guild}/invites", token=token)).json()
            assert [invite["code"] for invite in listed] == [made.json()["code"]]
            name = f"guest{int(skew)}{first is good}".replace("-", "m")
            await first.register(name)
            guest = (await second.login(name)).json()["access_token"]
            accepted = await second.ask("POST", f"/invites/{made.json()['code']}/accept", {}, guest)
            assert accepted.status_code == 200, accepted.text
            channel = (await first.ask("POST", f"/guilds/{guild}/channels", {"name": "c"}, token)).json()["channel_id"]
            for number, replica in enumerate((first, second)):
                posted = await replica.ask("POST", f"/channels/{channel}/messages", {"content": str(number)}, token)
                assert posted.status_code == 200
            events = (await first.ask("GET", f"/channels/{channel}/events", token=token)).json()
            stamps = [event["event"]["origin_ts"] for event in events]
            assert abs(stamps[1] - stamps[0]) < 10_000, "milliseconds"


@pytest.mark.parametrize("skew", [HOUR, -HOUR])
async def test_wrong_logins_at_a_replica_that_is_off_lock_out_for_the_window_only(
    database_url: str, skew: float
) -> None:
    async with replicas(database_url, 0.0, skew) as (good, off):
        await good.register("alice")
        for replica, other in ((off, good), (good, off)):
            window = replica.server.live.config.session.login_window_secs
            while (refused := await replica.login("alice", "wrong wrong")).status_code == 401:
                pass
            assert refused.status_code == 429
            for one in (refused, await other.login("alice")):
                assert one.status_code == 429
                assert int(one.headers["retry-after"]) <= 2 * window


async def test_the_first_reading_of_the_databases_clock_is_no_move(database_url: str) -> None:
    """The first reading logs that this machine's clock differs, and not that it was set."""
    with structlog.testing.capture_logs() as records:
        async with replicas(database_url, HOUR) as (replica,):
            server = replica.server
            server.replica.replica.wall_clock(server.timekeeper.wall(), now=time.monotonic())
            server.replica.perform_actions()
    told = [record["event"] for record in records if "clock" in record["event"]]
    assert len(told) == 1
    assert told[0].startswith("this machine's clock is 3600.0 s ahead of the database's")


async def test_the_difference_is_measured_and_told(database_url: str) -> None:
    async with replicas(database_url, 0.0) as (replica,):
        server, clock = replica.server, replica.clock

        def difference() -> float:
            lines = server.metrics.render().decode().splitlines()
            (line,) = (line for line in lines if line.startswith("openguild_clock_difference_seconds "))
            return float(line.split()[1])

        async def lines_after(ahead: float) -> list[str]:
            clock.ahead = ahead
            with structlog.testing.capture_logs() as records:
                await server.timekeeper.measure(server.storage)
            assert abs(difference() - ahead) < 1.0
            return [record["event"] for record in records if "clock" in record["event"]]

        assert await lines_after(0.0) == []
        (line,) = await lines_after(90.0)
        assert line.startswith("this machine's clock is 90.0 s ahead of the database's")
        assert abs(server.sources.wall() - time.time()) < 1.0, "it is the database's"
        assert await lines_after(WARN_SECS + 60.0) == [], "told once"
        assert await lines_after(0.0) == ["this machine's clock agrees with the database's again"]
        (line,) = await lines_after(-15.0)
        assert "15.0 s behind" in line


async def test_a_machine_s_clock_that_is_set_changes_nothing(database_url: str) -> None:
    async with replicas(database_url, 0.0) as (replica,):
        await replica.register("alice")
        token = (await replica.login("alice")).json()["access_token"]
        for ahead in (10 * HOUR, -10 * HOUR):
            replica.clock.ahead = ahead
            assert (await replica.ask("GET", "/users/me", token=token)).status_code == 200


async def test_a_memory_store_has_this_machine_s_clock() -> None:
    clock = Clock(HOUR)
    async with anyio.create_task_group() as tasks:
        config = ServerConfig.model_validate({"session": {"signing_key": SIGNING_KEY}, "storage": "memory"})
        server = Server(config, tasks, 1_000, sources=ClocksAndEntropy(wall=clock))
        await server.timekeeper.measure(server.storage)
        assert abs(server.sources.wall() - clock()) < 1.0
