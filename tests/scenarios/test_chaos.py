"""The short form of `make chaos`: two replicas, four faults; nothing lost, repeated or out of order."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scenarios.chaos import Plan, run_plan

FAULTS = ("kill -9 a server", "kill -9 PostgreSQL", "kill -9 nats-server", "cut a server from PostgreSQL")


@pytest.mark.anyio
async def test_nothing_acknowledged_is_lost_when_everything_fails(tmp_path: Path) -> None:
    plan = Plan(replicas=2, clients=20, channels=2, posts=2_000, posts_per_sec=60, pause_secs=2, faults=FAULTS)
    outcome = await run_plan(plan, tmp_path)
    assert (outcome.lost, outcome.repeated, outcome.out_of_order, outcome.gaps) == (0, 0, 0, 0)
    assert outcome.posts == plan.posts
    assert tuple(outcome.faults) == FAULTS
    assert outcome.deliveries == plan.posts * plan.clients // plan.channels
    assert outcome.reconnects > 0
