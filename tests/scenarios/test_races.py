"""The short form of `make races`: no change commits after its author's right to it has ended."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from openguild_runtime.embedded import EmbeddedNats
from tests.scenarios.races import CASES, arena, three_owners_demote_each_other

ROUNDS = int(os.environ.get("OPENGUILD_RACE_ROUNDS", "1"))  # per case


@pytest.mark.anyio
async def test_no_change_commits_after_its_authors_right_has_ended(
    new_database: Callable[[], str], nats_server: EmbeddedNats, tmp_path: Path
) -> None:
    async with arena(tmp_path, new_database(), nats_server.url, seed=2) as found:
        outcomes = await found.run(CASES, ROUNDS)
        assert {case: outcome.violations for case, outcome in outcomes.items() if outcome.violations} == {}
        assert {outcome.done + outcome.refused for outcome in outcomes.values()} == {ROUNDS}
        assert [await three_owners_demote_each_other(found) for _ in range(ROUNDS)] == [1] * ROUNDS
