"""What is wrong with a file of the configuration is one line: file, line, column, problem; never a value."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from openguild_runtime.config.files import MAX_FILE_BYTES
from openguild_runtime.config.layers import ConfigError
from openguild_runtime.config.server_config import ServerConfig, load

P = "OPENGUILD_SERVER__"
LONG = "9" * 5_000  # Python reads no such number
TRAILING_COMMA = "line 2, column 12: illegal trailing comma" if sys.version_info >= (3, 13) else "line 3, column 1: "


def written(directory: Path, name: str, content: str | bytes) -> Path:
    (directory / "config").mkdir(exist_ok=True)
    path = directory / "config" / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def loaded(directory: Path) -> ServerConfig:
    return load({}, {}, directory)


def refused(directory: Path) -> str:
    with pytest.raises(ConfigError) as failure:
        loaded(directory)
    line = str(failure.value)
    assert "\n" not in line
    assert "hunter2" not in line
    return line


@pytest.mark.parametrize(
    ("name", "content", "place"),
    [
        ("server.toml", "port = 1\nserver_name = = 'x'", "line 2, column 15: invalid value"),
        ("server.toml", "port = 1\nport = 2\n", "line 2, column 9: cannot overwrite a value"),
        ("server.toml", "[messaging]\nreplay_window = 1\n[messaging]\n", "line 3, column 11: cannot declare"),
        ("server.toml", "[session]\nsigning_key = 'hunter2\n", "line 2, column 23: "),
        ("server.toml", "port = 1\n\n[session", "line 3, column 9: expected"),
        ("server.toml", f"server_name = 'x'\nport = {LONG}", "line 2, column 8: a value that cannot be read"),
        ("server.json", '{\n  "port": 1,\n}', TRAILING_COMMA),
        ("server.json", '{\n\t"session": {"signing_key": "hunter2}\n}', "line 2, column 38: "),
        ("server.json", "", "line 1, column 1: expecting value"),
        ("server.json", '{"port": 1,\n\t"port": 2}', "line 2, column 2: a key stands twice"),
        ("server.json", f'{{\n"port": {LONG}}}', "line 2, column 9: a value that cannot be read"),
        ("server.yaml", "port: 1\nmessaging: {a: [1\n", "line 3, column 1: expected ',' or ']'"),
        ("server.yaml", "port: 1\nport: 2", "line 2, column 1: a key stands twice"),
        ("server.yaml", "http:\n  a: 1\n  b: 2\n  a: 3", "line 4, column 3: a key stands twice"),
        ("server.yaml", "session:\n  signing_key: *hunter2", "line 2, column 16: found undefined alias ..."),
        ("server.yaml", "session:\n  signing_key: !hunter2 x", "line 2, column 16: could not determine"),
        ("server.yaml", "port: 2024-13-45", "line 1, column 7: a value that cannot be read"),
        ("server.yaml", "port: 1\n---\nport: 2", "line 2, column 1: "),
        ("server.yaml", "port: 1\nhost: '\0'", "line 2, column 8: a character"),
        ("server.yaml", "? [a, b]\n: 1", "line 1, column 3: found unhashable key"),
        ("server.yaml", "port: 010", "line 1, column 7: a number that is not decimal"),
        ("server.yaml", f"port: {LONG}", "line 1, column 7: a value that cannot be read"),
    ],
)  # fmt: skip
def test_a_fault_of_syntax_is_placed(name: str, content: str, place: str, tmp_path: Path) -> None:
    path = written(tmp_path, name, content)
    assert f"{path}, {place}" in refused(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("server.toml", "a = " + "[" * 20_000),
        ("server.json", "[" * 100_000),
        ("server.yaml", "a: " + "[" * 3_000),
        ("server.yaml", "messaging: &a\n  b: *a"),
    ],
)
def test_what_is_nested_without_end_is_refused(name: str, content: str, tmp_path: Path) -> None:
    path = written(tmp_path, name, content)
    line = refused(tmp_path)
    assert str(path) in line
    assert "nested too deeply" in line or "within itself" in line


def test_what_is_no_utf_8_is_said(tmp_path: Path) -> None:
    path = written(tmp_path, "server.toml", b"port = 1\nserver_name = '\xff'\n")
    assert f"{path}, line 2: is not UTF-8; save it as UTF-8" in refused(tmp_path)
    written(tmp_path, "server.toml", "port = 1".encode("utf-16"))
    assert f"{path}, line 1: is not UTF-8" in refused(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("server.toml", "port = 9\r\n[messaging]\r\nreplay_window = 3\r\n"),
        ("server.yaml", "port: 9\r\nmessaging:\r\n  replay_window: 3\r\n"),
        ("server.json", '{"port": 9,\r\n"messaging": {"replay_window": 3}}\r\n'),
    ],
)
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte order mark"])
def test_files_of_other_editors_are_read(name: str, content: str, mark: bytes, tmp_path: Path) -> None:
    written(tmp_path, name, mark + content.encode())
    assert (loaded(tmp_path).port, loaded(tmp_path).messaging.replay_window) == (9, 3)


@pytest.mark.parametrize("content", ["", "# nothing yet\n"])
def test_a_file_without_keys_sets_none(content: str, tmp_path: Path) -> None:
    for name in ("server.toml", "server.local.yaml"):
        written(tmp_path, name, content)
    assert loaded(tmp_path) == ServerConfig()


def test_what_is_there_and_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    path = tmp_path / "config" / "server.toml"
    path.mkdir()
    assert f"{path}: is a directory" in refused(tmp_path)
    path.rmdir()
    path.symlink_to(tmp_path / "nowhere")
    assert f"{path}: cannot be read (no such file or directory)" in refused(tmp_path)
    path.unlink()
    path.symlink_to("/dev/zero")
    assert f"{path}: has more than {MAX_FILE_BYTES} bytes" in refused(tmp_path)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('"messaging.replay_window" = 1', "write replay_window into the section messaging"),
        ("[Messaging]\nreplay_window = 1", "Messaging: unknown key; did you mean messaging?"),
        ('"port\\n" = 1', "port\\n: unknown key; did you mean port?"),
        ("http.head_timeout_secs = '10s'", "is not a number; write seconds without a unit, such as 10"),
        ("websocket.max_message_bytes = '64K'", "is not a whole number; write bytes without a unit, such as 10"),
    ],
)
def test_a_misspelt_key_or_a_unit_is_mended(content: str, expected: str, tmp_path: Path) -> None:
    written(tmp_path, "server.toml", content)
    assert expected in refused(tmp_path)


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b"\xff", ", line 1: is not UTF-8"), (b"x" * (MAX_FILE_BYTES + 1), ": has more than"), (None, ": is a directory")],
)
def test_the_file_of_a_secret_is_read_alike(content: bytes | None, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "secret"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    for name in (P + "DATABASE_URL_FILE", "NATS_URL_FILE"):
        with pytest.raises(ConfigError) as failure:
            load({}, {name: str(path)}, tmp_path)
        assert f"{name}: the file it names{expected}" in str(failure.value)


def test_the_file_of_a_secret_may_begin_with_a_mark(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"\xef\xbb\xbfpostgresql://h\r\n")
    config = load({}, {P + "DATABASE_URL_FILE": str(tmp_path / "secret")}, tmp_path)
    assert config.database_url is not None
    assert config.database_url.get_secret_value() == "postgresql://h"
