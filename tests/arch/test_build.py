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


def test_an_environment_whose_python_is_gone_is_made_anew(tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    for stamp in ("pyvenv.cfg", ".embedded"):
        (venv / stamp).touch()
    (venv / "bin/python").symlink_to(tmp_path / "gone")
    done = subprocess.run(
        ["make", "--dry-run", f"VENV={venv}", "run"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert f"-m venv {venv}" in done.stdout
    assert "--editable" in done.stdout


def test_the_list_of_commands_fits_a_terminal() -> None:
    lines = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert max(len(line) for line in lines) < 80
    assert all(line[20] == " " for line in lines)
