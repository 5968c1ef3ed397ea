"""A session in a file: kept as a whole, for its owner alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from openguild_proto.client import ResumePosition, Session
from openguild_runtime.client.session_file import SessionFile


def test_it_gives_back_what_it_was_given(tmp_path: Path) -> None:
    file = SessionFile(tmp_path / "bot.json")
    assert file.load() is None
    file.save(Session("a", "r", positions={"channel:c": ResumePosition(2, 7)}))
    loaded = file.load()
    assert loaded is not None
    assert (loaded.access_token, loaded.refresh_token, loaded.positions) == (
        "a",
        "r",
        {"channel:c": ResumePosition(2, 7)},
    )
    assert (tmp_path / "bot.json").stat().st_mode & 0o777 == 0o600
    file.save(None)
    file.save(None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"access_token": "a", "refresh_token": "r", "positions": {"l": 3}}'])
def test_a_file_with_anything_else_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bot.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"bot\.json contains no session"):
        SessionFile(path).load()


def test_a_program_goes_on_where_the_file_cannot_be_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "bots" / "bot.json"
    file, session = SessionFile(path), Session("a", "r")
    with pytest.raises(OSError, match=r"No such file or directory: '.*bot\.json'"):
        file.save(session)
    for _ in range(3):
        file.try_save(session)
    (line,) = caplog.messages
    assert line.startswith(f"cannot write {path} (No such file or directory): ")
    path.parent.mkdir()
    for _ in range(3):
        file.try_save(session)
    assert caplog.messages == [line, f"{path} can be written again"]
    assert SessionFile(path).load() is not None
    assert list(path.parent.iterdir()) == [path]


def test_without_a_path_nothing_is_kept() -> None:
    file = SessionFile(None)
    file.save(Session("a", "r"))
    assert file.load() is None
