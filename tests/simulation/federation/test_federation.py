"""Seeds of federating servers on simulated time, and proof that the search finds planted bugs."""

from __future__ import annotations

import pytest

from tests.simulation.federation.__main__ import replay_command
from tests.simulation.federation.plants import PLANTS
from tests.simulation.federation.scenario import run_seed

SEEDS = 6  # `make simulate-federation` runs more of them
BEGIN = {
    "move_cursors_before_the_answer": 0, "trust_the_home": 3, "begin_chains_at_each_receipt": 1, "keep_redacted_texts": 2,
    "forget_nonces_of_requests": 0, "forget_nonces_of_posts": 0, "keep_mirrors_of_the_removed": 0, "deliver_to_the_removed": 2,
    "admit_the_banned": 4, "begin_without_bans": 5,
}  # fmt: skip
"""Where the search for each bug begins, so that it is short."""
PLANT_SEEDS = 60


def test_mirrors_are_what_their_owners_have() -> None:
    delivered = 0
    for seed in range(SEEDS):
        report = run_seed(seed)
        assert report.violations == [], f"replay: {replay_command(seed)}"
        assert report.posts > 0
        delivered += report.delivered
    assert delivered > 100


def test_a_seed_is_one_run() -> None:
    first, second = run_seed(3), run_seed(3)
    assert first == second
    assert first.digest != run_seed(4).digest


@pytest.mark.parametrize("plant", sorted(PLANTS))
def test_a_planted_bug_is_found(plant: str) -> None:
    for seed in range(BEGIN[plant], BEGIN[plant] + PLANT_SEEDS):
        if run_seed(seed, PLANTS[plant]).violations:
            return
    pytest.fail(f"{plant} was not found")
