"""The Python client through a server that injects faults from a seed. More seeds: `make client-chaos`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scenarios.client_chaos.run import Outcome, run_seed
from tests.support.server import ServerProcess


@pytest.mark.anyio
async def test_all_clients_are_level_and_nothing_is_done_twice(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path, "--embedded", "--data-dir", str(tmp_path / "data"), "--chaos-seed", "1")
    outcomes: list[Outcome] = []
    with server.start(ready=False):
        while not outcomes or not _signals(server):  # on a fast machine a run is over before the first worker ends
            outcomes.append(await run_seed(len(outcomes) + 1, server.base_url, tmp_path, posts=10))
    for outcome in outcomes:
        assert outcome.is_good, outcome
        assert outcome.posts == 20
    assert sum(outcome.interruptions for outcome in outcomes) > 0


def _signals(server: ServerProcess) -> set[str]:
    """Return the signals with which the server has ended its own workers."""
    return {record["signal"] for record in server.records() if record["message"] == "a worker ends"}
