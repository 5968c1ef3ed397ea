"""A synchronous standby is promoted under load, and the former primary returns. `make failover` is the long run."""

from __future__ import annotations

import asyncio
from pathlib import Path

import asyncpg

from openguild_runtime.embedded import EmbeddedNats
from tests.conftest import run_apart
from tests.scenarios.failover.run import authors_of, fail_over, read_own, staged
from tests.scenarios.test_control_log import messages
from tests.scenarios.test_failover import RENEWED, history
from tests.support.waiting import wait_until


def count_events(url: str) -> int:
    found: list[int] = []

    async def look() -> None:
        connection = await asyncpg.connect(url)
        found.append(await connection.fetchval("SELECT count(*) FROM log_events"))
        await connection.close()

    run_apart(look)
    return found[0]


def test_nothing_acknowledged_is_lost_and_the_former_primary_is_left_alone(
    module_directory: Path, nats_server: EmbeddedNats
) -> None:
    """The former primary accepts writes and stands first in the URL, and one server restarts meanwhile."""
    with staged(module_directory, nats_url=nats_server.url, fsync=False) as stage:
        authors = authors_of(stage, 4)
        own = asyncio.run(read_own(stage, authors, 48))
        assert own.missed == 0
        assert own.by_standby >= own.reads
        before: list[int] = []

        def come_back() -> None:
            stage.primary.return_alone()
            before.append(count_events(stage.primary.url))
            assert stage.servers[0].stop() == 0
            stage.servers[0].start()

        outcome = asyncio.run(fail_over(stage, authors, rate=40, secs=0.5, then=lambda: asyncio.to_thread(come_back)))
        assert outcome.is_good, outcome
        assert outcome.refused <= {0, 503}
        assert count_events(stage.primary.url) == before[0] < count_events(stage.standby.url)
        # It looks like one that lost commits, so the epochs are renewed, and no server reads from its former standby.
        assert history(stage.standby.url)[0] == 1
        assert sum(messages(server).count(RENEWED) for server in stage.servers) == 1
        wait_until(lambda: "standbys" in stage.servers[1].chat().http.get("/ready").text)
        assert stage.servers[1].chat().http.get("/ready").json()["status"] == "degraded"
