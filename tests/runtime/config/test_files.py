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
        ("server.toml", f"server_name = 'x'\nport = {LONG}", "line 2, column 8: a value that cannot be parsed"),
        ("server.json", '{\n  "port": 1,\n}', TRAILING_COMMA),
        ("server.json", '{\n\t"session": {"signing_key": "hunter2}\n}', "line 2, column 38: "),
        ("server.json", "", "line 1, column 1: expecting value"),
        ("server.json", '{"port": 1,\n\t"port": 2}', "line 2, column 2: duplicate key in a section"),
        ("server.json", f'{{\n"port": {LONG}}}', "line 2, column 9: a value that cannot be parsed"),
        ("server.yaml", "port: 1\nmessaging: {a: [1\n", "line 3, column 1: expected ',' or ']'"),
        ("server.yaml", "port: 1\nport: 2", "line 2, column 1: duplicate key in a section"),
        ("server.yaml", "http:\n  a: 1\n  b: 2\n  a: 3", "line 4, column 3: duplicate key in a section"),
        ("server.yaml", "session:\n  signing_key: *hunter2", "line 2, column 16: found undefined alias ..."),
        ("server.yaml", "session:\n  signing_key: !hunter2 x", "line 2, column 16: could not determine"),
        ("server.yaml", "port: 2024-13-45", "line 1, column 7: a value that cannot be parsed"),
        ("server.yaml", "port: 1\n---\nport: 2", "line 2, column 1: "),
        ("server.yaml", "port: 1\nhost: '\0'", "line 2, column 8: a character"),
        ("server.yaml", "? [a, b]\n: 1", "line 1, column 3: found unhashable key"),
        ("server.yaml", "port: 010", "line 1, column 7: a number that is not decimal"),
        ("server.yaml", f"port: {LONG}", "line 1, column 7: a value that cannot be parsed"),
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
    assert "nested too deeply" in line or "refers to itself" in line


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
        (
            '[session]\nsigning_key_file = "x"',
            "failed to build configuration: session.signing_key_file: unknown key; did you mean session.signing_key? (set by",
        ),
        ("[Messaging]\nreplay_window = 1", "Messaging: unknown key; did you mean messaging?"),
        ('"port\\n" = 1', "port\\n: unknown key; did you mean port?"),
        ("http.head_timeout_secs = '10s'", "is not a number; write seconds without a unit, such as 10"),
        ("[server]\nport = 8080", "server: unknown key; write the keys at the top level, without `server` before them"),
        ("server.nats.url = 'nats://a'", "server: unknown key; write the keys at the top level"),
        ("port = 'x'", "port: is not an integer; write one, such as 8080"),
        ("drain.window_secs = 'x'", "is not a number; write seconds without a unit, such as 10"),
        ("http.body_timeout_secs = []", "is not a number; write seconds without a unit, such as 30"),
        ("database.pool_size = 1.5", "is not an integer; write one, such as 10"),
        ("websocket.max_connections = 'x'", "is not an integer; write one, such as 20000"),
        (f"port = {2**70}", "port: is not a number, or has too many digits; write one, such as 8080"),
        ("websocket.max_message_bytes = '64K'", "is not an integer; write bytes without a unit, such as 65536"),
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
        assert f"{name}: the file that it names{expected}" in str(failure.value)


def test_the_file_of_a_secret_may_begin_with_a_mark(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"\xef\xbb\xbfpostgresql://h\r\n")
    config = load({}, {P + "DATABASE_URL_FILE": str(tmp_path / "secret")}, tmp_path)
    assert config.database_url is not None
    assert config.database_url.get_secret_value() == "postgresql://h"


@pytest.mark.parametrize(
    ("name", "content", "key"),
    [
        ("server.toml", 'port = "8080"', "port"),
        ("server.toml", '[drain]\nwindow_secs = " 1.5 "', "drain.window_secs"),
        ("server.yaml", "workers: '2'", "workers"),
        ("server.local.json", '{"messaging": {"replay_window": "-1"}}', "messaging.replay_window"),
    ],
)
def test_a_number_in_quotes_is_refused_in_files_only(name: str, content: str, key: str, tmp_path: Path) -> None:
    written(tmp_path, name, content)
    assert f"{key}: is a number in quotes; remove the quotes (set by config/{name})" in refused(tmp_path)
    for other in (tmp_path / "config").iterdir():
        other.unlink()
    assert load({}, {"OPENGUILD_SERVER__PORT": "8085"}, tmp_path).port == 8_085
    written(tmp_path, "server.toml", "server_name = '10'")
    assert load({}, {}, tmp_path).server_name == "10", "a text may look like a number"


def test_every_fault_is_told_in_a_line_of_its_own(tmp_path: Path) -> None:
    written(tmp_path, "server.toml", 'port = "8080"\nworkers = 65\nlog_fromat = "json"\n[http]\nidle_timeout_secs = 0')
    written(tmp_path, "server.local.yaml", "a: [")
    environ = {"OPENGUILD_SERVER__NOPE": "1", "OPENGUILD_SERVER_PORT": "1", "OPENGUILD_SERVER__HOST": "x"}
    with pytest.raises(ConfigError) as failure:
        load({"storage": "sqlite"}, environ, tmp_path)
    keys = ("port", "server.local.yaml", "OPENGUILD_SERVER__NOPE", "OPENGUILD_SERVER_PORT", "host", "log_fromat",
            "workers", "http.idle_timeout_secs", "storage")  # fmt: skip
    for key in keys:
        assert len([line for line in failure.value.lines if f"{key}:" in line or f"{key}, line" in line]) == 1, key
    assert len(failure.value.lines) == len(keys)
    assert str(failure.value) == f"{failure.value.lines[0]} (8 more: `openguild-server config check` lists them)"


def test_all_contradictions_are_told_unless_a_layer_is_missing(tmp_path: Path) -> None:
    flags = {"workers": "2", "storage": "memory", "database_url": "postgresql://h/d"}
    with pytest.raises(ConfigError) as failure:
        load(flags, {}, tmp_path)
    assert [line.partition(":")[0] for line in failure.value.lines] == ["storage", "workers", "workers"]
    written(tmp_path, "server.toml", "nats.url =")
    with pytest.raises(ConfigError) as failure:
        load(flags, {}, tmp_path)
    assert [line.partition(", line")[0] for line in failure.value.lines] == [
        f"failed to build configuration: {tmp_path / 'config/server.toml'}"
    ]
