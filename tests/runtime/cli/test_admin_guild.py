"""What `openguild-server admin guild ...` asks of the server."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from openguild_runtime.cli.admin_guild import guild_request
from openguild_runtime.cli.main import build_parser
from openguild_runtime.server.failures import CommandFailed

STATEMENT = '{"server": "south.test", "statement": {"term": 2}}'


def asked(*arguments: str) -> dict[str, object]:
    return guild_request(vars(build_parser().parse_args(["admin", "guild", *arguments])))


def test_a_statement_from_a_file_from_standard_input_or_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "statement.json"
    file.write_text(STATEMENT)
    monkeypatch.setattr("sys.stdin", io.StringIO(STATEMENT))
    wanted = {"command": "guild", "action": "succeed", "statement": {"term": 2}}
    assert [asked("succeed", given) for given in (str(file), "-", STATEMENT, '{"term": 2}')] == [wanted] * 4


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("/nowhere", r"admin: /nowhere: cannot be read \(No such file or directory\)$"),
        ('{"term": 2', "admin: the statement: is not JSON: "),
    ],
)
def test_what_is_no_statement(given: str, told: str) -> None:
    with pytest.raises(CommandFailed, match=told):
        asked("succeed", given)


def test_a_guild_that_is_given_up() -> None:
    wanted = {"command": "guild", "action": "give-up", "guild": "g", "server": "north.test"}
    assert asked("give-up", "g", "--to", "north.test") == wanted
