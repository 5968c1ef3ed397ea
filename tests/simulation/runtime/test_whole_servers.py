"""A few seeds of whole servers, and proof that the search finds planted bugs; tests/simulation runs most seeds."""

from __future__ import annotations

import pytest

from tests.simulation.runtime.__main__ import replay_command
from tests.simulation.runtime.plants import PLANTS
from tests.simulation.runtime.scenario import run_seed

SEEDS = 4  # `python -m tests.simulation.runtime` runs more of them
PLANT_SEEDS = 50
RARE = {
    "forget_the_rest": 37,
    "replay_before_subscribe": 4,
    "trust_nats_for_control": 5,
}  # the first seeds to try for each


def test_nothing_acknowledged_is_lost_repeated_or_out_of_order() -> None:
    for seed in range(SEEDS):
        report = run_seed(seed)
        assert report.violations == [], f"replay: {replay_command(report.seed)}"
        assert report.posts > 0
        assert report.deliveries > report.posts


def test_a_seed_is_one_run() -> None:
    assert run_seed(9) == run_seed(9)


@pytest.mark.parametrize("plant", sorted(PLANTS))
def test_a_planted_bug_is_found_within_50_seeds(plant: str) -> None:
    first = RARE.get(plant, 0)
    for seed in range(first, first + PLANT_SEEDS):
        if run_seed(seed, PLANTS[plant]).violations:
            return
    pytest.fail(f"{plant} was not found")
