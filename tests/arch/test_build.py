"""`make` builds again what has changed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [
    path.relative_to(ROOT)
    for pattern in ("ext/*.pyx", "openguild_proto/**/*.pxd", "openguild_runtime/**/*.pxd")
    for path in ROOT.glob(pattern)
]


@pytest.mark.parametrize("source", SOURCES, ids=str)
def test_a_changed_source_of_the_extensions_is_built(source: Path) -> None:
    done = subprocess.run(
        ["make", "--dry-run", f"--what-if={source}", "run"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "--editable" in done.stdout
