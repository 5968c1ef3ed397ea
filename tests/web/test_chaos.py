"""The JavaScript client through a server that injects faults from a seed. More seeds: `make client-chaos`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scenarios.client_chaos.run import run_javascript
from tests.support.server import ServerProcess


@pytest.mark.timeout(400)
def test_all_clients_are_level_and_nothing_is_done_twice(node: str, tmp_path: Path) -> None:
    server = ServerProcess(tmp_path, "--embedded", "--data-dir", str(tmp_path / "data"), "--chaos-seed", "3")
    with server.start(ready=False):
        outcome = run_javascript(3, server.base_url, posts=5)
    assert outcome.is_good, outcome
    assert outcome.posts == 10
    assert outcome.interruptions > 0
