"""Mistakes on the command line are told in one line."""

from __future__ import annotations

import pytest

from openguild_runtime.cli.main import build_parser


@pytest.mark.parametrize(
    ("arguments", "parser", "told"),
    [
        ("--prot 80", "", "unknown flag --prot: did you mean --port? See"),
        ("--workers=2 --por=3", "", "unknown flag --por: did you mean --port? See"),
        ("--port 80 --bogus", "", "unknown flag --bogus; see"),
        ("chanels", "", "unknown subcommand chanels; see"),
        ("prob", "", "unknown subcommand prob: did you mean probe? See"),
        ("config dump extra", "", "unrecognized arguments: extra; see"),
        ("config chek", " config", "unknown action chek: did you mean check? See"),
        ("completion powershell", " completion", "unknown shell powershell: expected one of bash, zsh; see"),
        ("admin why", " admin why", "the following arguments are required: request_id; see"),
        ("admin sessions --usr x", " admin sessions", "unknown flag --usr: did you mean --user? See"),
        (
            "admin top --data-dir x",
            " admin top",
            "unknown flag --data-dir: write it before the subcommand: openguild-server --data-dir ...; see",
        ),
    ],
)
def test_a_mistake_is_named_in_one_line(
    arguments: str, parser: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        build_parser().parse_args(arguments.split())
    assert ended.value.code == 2
    program = f"openguild-server{parser}"
    assert capsys.readouterr().err == f"{program}: {told} {program} --help\n"


def test_values_are_no_flags() -> None:
    parsed = build_parser().parse_args(
        ["--port", "80", "--server-name=--x", "admin", "set", "messaging.replay_window", "-1"]
    )
    assert (parsed.port, parsed.server_name, parsed.value) == ("80", "--x", "-1")


def test_usage_is_for_those_who_ask(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        build_parser().parse_args(["admin", "top", "--help"])
    assert ended.value.code == 0
    assert "usage: openguild-server admin top" in capsys.readouterr().out
