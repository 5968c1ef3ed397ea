"""A few hundred seeds of the whole cluster, and proof that the search finds what it is for."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
from concurrent.futures import ProcessPoolExecutor

import pytest

from tests.simulation.runtime.__main__ import ROOT, replay_command
from tests.simulation.runtime.plants import PLANTS
from tests.simulation.runtime.scenario import run_seed

SEEDS = 240


@pytest.mark.timeout(400)  # on a busy machine; half a minute on two free cores
def test_nothing_acknowledged_is_lost_repeated_or_out_of_order() -> None:
    context = multiprocessing.get_context("spawn")  # nothing of this process goes along
    with ProcessPoolExecutor(os.cpu_count() or 1, mp_context=context) as pool:
        for report in pool.map(run_seed, range(SEEDS), chunksize=8):
            assert report.violations == [], f"replay: {replay_command(report.seed)}"
            assert report.posts > 0
            assert report.deliveries > report.posts


def test_a_seed_is_one_run() -> None:
    first, second = run_seed(9), run_seed(9)
    assert first == second
    assert first.digest != run_seed(10).digest


def test_the_command_that_replays_a_seed_runs_as_it_stands() -> None:
    """From the checkout, in a shell that knows of no virtual environment."""
    command = replay_command(9)
    assert command.startswith("PYTHONHASHSEED=0 PYTHONPATH=. ")
    ran = subprocess.run(
        command, shell=True, cwd=ROOT, env={"PATH": os.defpath}, capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("1 seeds, ")


@pytest.mark.parametrize("plant", sorted(PLANTS))
def test_a_planted_bug_is_found_within_200_seeds(plant: str) -> None:
    for seed in range(200):
        if run_seed(seed, PLANTS[plant]).violations:
            return
    pytest.fail(f"{plant} was not found")
