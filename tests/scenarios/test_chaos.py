"""The short form of `make chaos`: two replicas, four faults; nothing lost, repeated or out of order."""

from __future__ import annotations

from pathlib import Path

import pytest

from openguild_proto.limits import TAIL_CHECK_SECS
from tests.scenarios.chaos.plan import Plan
from tests.scenarios.chaos.run import run_plan

FAULTS = ("kill -9 a server", "kill -9 PostgreSQL", "kill -9 nats-server", "cut a server from PostgreSQL")


@pytest.mark.anyio
async def test_nothing_acknowledged_is_lost_when_everything_fails(tmp_path: Path) -> None:
    plan = Plan(replicas=2, clients=20, channels=2, posts=1_600, posts_per_sec=48, pause_secs=2, faults=FAULTS)
    outcome = await run_plan(plan, tmp_path)
    assert outcome.is_good, outcome
    assert outcome.posts == plan.posts
    assert outcome.redactions > 0
    assert tuple(outcome.faults) == FAULTS
    assert outcome.deliveries >= (plan.posts + outcome.redactions) * plan.clients // plan.channels
    for fault, secs in outcome.latest_text_by_fault.items():
        most = (
            TAIL_CHECK_SECS if "nats" in fault else 1.0
        )  # without NATS a replica learns of a redaction by its tail check
        assert secs <= most, f"{fault}: a text long after the answer to its redaction"
    assert outcome.reconnects > 0
