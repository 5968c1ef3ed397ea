"""The script is run by a real shell."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from openguild_runtime.cli.completion import SHELLS, script
from openguild_runtime.cli.main import build_parser

ASK = """
source "$1"
shift
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
_openguild_server
printf '%s\\n' "${COMPREPLY[@]}"
"""


def complete(directory: Path, *words: str) -> list[str]:
    written = directory / "script"
    written.write_text(script(build_parser(), "bash"))
    done = subprocess.run(
        ["bash", "-c", ASK, "bash", written, "openguild-server", *words],
        cwd=directory, capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["pro"], ["probe"]),
        (["--po"], ["--port"]),
        (["--log-format", ""], ["compact", "json"]),
        (["--embedded", "admin", "to"], ["top"]),
        (["admin", "sessions", "--u"], ["--user"]),
        (["admin", "set", "reg"], ["registration.enabled"]),
        (["admin", "log", "warn"], ["warn", "warning"]),
        (["assign-guild-role", "--role", "own"], ["owner"]),
        (["config", "d"], ["dump"]),
        (["--data-dir", "scr"], ["script"]),
        (["--port", ""], []),
        (["nonsense", "--na"], ["--nats-url"]),
    ],
)
def test_the_next_word_is_found(tmp_path: Path, words: list[str], found: list[str]) -> None:
    assert complete(tmp_path, *words) == found


@pytest.mark.parametrize("shell", SHELLS)
def test_the_shell_reads_the_script(shell: str, tmp_path: Path) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"no {shell} on this machine")
    (tmp_path / "script").write_text(script(build_parser(), shell))
    done = subprocess.run(
        [program, "-c", "source ./script"], cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
