"""The lines for somebody who has just started a server."""

from __future__ import annotations

from pathlib import Path

import pytest

from openguild_runtime.server.first_steps import first_steps
from tests.support.server import ROOT


@pytest.mark.parametrize(
    ("program", "shown"),
    [
        (".venv/bin/openguild-server", ".venv/bin/openguild-server"),
        ("{here}/.venv/bin/openguild-server", ".venv/bin/openguild-server"),
        ("/usr/bin/openguild-server", "/usr/bin/openguild-server"),
        ("/x/main.py", "openguild-server"),
        ("-c", "openguild-server"),
    ],
)
def test_they_name_the_program_that_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, program: str, shown: str
) -> None:
    directory = tmp_path / "a" / "long" / "way" / "down"
    directory.mkdir(parents=True)
    monkeypatch.chdir(directory)
    monkeypatch.setattr("sys.argv", [program.format(here=directory)])
    assert first_steps(8080, Path(".data")) == [
        "serving on http://127.0.0.1:8080",
        f"  chat here:    {shown} chat  (in another terminal, one per person)",
        f"  look inside:  {shown} --embedded --data-dir .data admin top",
        "  the API:      http://127.0.0.1:8080/openapi.json",
        "  stop:         Ctrl-C  (messages are stored in .data)",
    ]


def test_another_port_is_in_the_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("sys.argv", ["openguild-server"])
    lines = first_steps(8090, Path("/data"))
    assert lines[0] == "serving on http://127.0.0.1:8090"
    assert lines[1].startswith("  chat here:    openguild-server chat http://127.0.0.1:8090  (")
    assert lines[2].startswith("  in a browser: make web API=http://127.0.0.1:8090  (")


def test_a_path_with_spaces_can_be_copied(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["my bin/openguild-server"])
    lines = first_steps(8080, Path("my data"))
    assert lines[1].startswith("  chat here:    'my bin/openguild-server' chat  (")
    assert lines[2] == "  look inside:  'my bin/openguild-server' --embedded --data-dir 'my data' admin top"
