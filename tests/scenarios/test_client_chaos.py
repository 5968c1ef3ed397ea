"""The Python client through a server that causes faults by a seed. More seeds: `make client-chaos`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scenarios.client_chaos.run import run_seed
from tests.support.server import ServerProcess


@pytest.mark.anyio
async def test_all_clients_are_level_and_nothing_is_done_twice(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path, "--embedded", "--data-dir", str(tmp_path / "data"), "--chaos-seed", "1")
    with server.start(ready=False):
        outcome = await run_seed(1, server.base_url, tmp_path, posts=10)
    assert outcome.is_good, outcome
    assert outcome.posts == 20
    assert outcome.interruptions > 0
    signals = {record["signal"] for record in server.records() if record["message"] == "a worker ends"}
    assert signals
