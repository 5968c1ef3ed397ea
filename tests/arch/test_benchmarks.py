"""The benchmarks' command line and what is checked in of their results."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from benchmarks.lab.figures import ratio
from benchmarks.lab.results import HISTORY, MAX_BYTES, RESULTS, SCHEMA, history

ROOT = Path(__file__).resolve().parents[2]
STAMPED = [
    path for path in sorted(RESULTS.glob("*.json")) if path != SCHEMA and "stamp" in json.loads(path.read_text())
]


SUITES = sorted(path.parent.name for path in (ROOT / "benchmarks").glob("*/__main__.py"))
OPTIONAL = {"matplotlib", "openguild_runtime.net._flush"}  # of the extra; made where a compiler is


@pytest.mark.parametrize("suite", SUITES)
def test_every_benchmark_begins(suite: str) -> None:
    """What it imports is there: nobody runs all of them at each change."""
    try:
        importlib.import_module(f"benchmarks.{suite}.__main__")
    except ModuleNotFoundError as missing:
        assert missing.name in OPTIONAL  # noqa: PT017  # another one is a fault


@pytest.mark.parametrize("path", STAMPED, ids=lambda path: path.name)
def test_results_follow_the_schema_and_are_small(path: Path) -> None:
    jsonschema.validate(json.loads(path.read_text()), json.loads(SCHEMA.read_text()))
    assert path.stat().st_size <= MAX_BYTES


def test_the_history_holds_one_ratio_for_each_commit_and_measure() -> None:
    lines = history()
    assert len({(line["commit"], line["suite"], line["measure"]) for line in lines}) == len(lines)
    assert all(float(line["low"]) <= float(line["ratio"]) <= float(line["high"]) for line in lines), HISTORY


def test_a_ratio_of_paired_windows_ignores_a_slow_minute() -> None:
    found = ratio([1.0, 10.0, 1.1], [2.0, 20.0, 2.2])
    assert found == {"ratio": 0.5, "low": 0.5, "high": 0.5, "runs": 3}


def test_help_needs_no_extra() -> None:
    blocked = "import sys; sys.modules.update(dict.fromkeys(['matplotlib', 'httpx', 'asyncpg', 'anyio', 'msgspec']))"
    program = f"{blocked}; sys.argv[1:] = ['--help']; import runpy; runpy.run_module('benchmarks', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "python -m benchmarks compare main HEAD" in done.stdout
