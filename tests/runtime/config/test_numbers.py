"""Every number of the configuration has bounds, and whatever sets it is held to them: files, environment, flags, `admin set`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from openguild_runtime.admin.reload import SETTABLE, value_of
from openguild_runtime.admin.socket_commands import Refused, change
from openguild_runtime.cli.main import PLAIN_FLAGS
from openguild_runtime.config.declared import keys_of
from openguild_runtime.config.layers import ConfigError
from openguild_runtime.config.server_config import ServerConfig, load
from tests.support.numbers import NUMBERS, Number

P = "OPENGUILD_SERVER__"
NATS = {"nats.url": "nats://h"}  # which more than one worker need
ENDLESS = ("nan", "inf", "-inf", "1e400", "1" + "0" * 400, "1" + "0" * 5_000)


def variable(key: str) -> str:
    return P + key.upper().replace(".", "__")


def refused(directory: Path, key: str, flags: dict[str, Any] | None = None, **environ: str) -> None:
    with pytest.raises(ConfigError) as failure:
        load(flags or {}, environ, directory)
    line = str(failure.value)
    assert f"{key}:" in line or f"{key} must be" in line, line
    assert "\n" not in line
    for raw in ("Input should be", "pydantic", "is invalid ("):
        assert raw not in line, line


def test_every_number_has_bounds() -> None:
    assert len(NUMBERS) > 30
    assert [number.key for number in NUMBERS if number.least is None or number.most is None] == []


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: number.key)
def test_the_most_is_taken_and_what_is_beyond_it_refused(number: Number, tmp_path: Path) -> None:
    name, most = variable(number.key), number.most
    assert value_of(load(NATS, {name: str(most)}, tmp_path), number.key) == most
    for bad in (*number.outside, *ENDLESS):
        refused(tmp_path, number.key, **{name: str(bad)})
    for bad in ("true", "ten", "10s", "1,000", "0x10", " ", "--1"):
        refused(tmp_path, number.key, **{name: bad})


@pytest.mark.parametrize("suffix", ["toml", "yaml", "json"])
@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: number.key)
def test_a_file_is_held_to_the_same(number: Number, suffix: str, tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    path = tmp_path / "config" / f"server.{suffix}"
    endless = {
        "toml": ("nan", "inf", "1e400", "1" + "0" * 400, "true", "'ten'", "[]", "{}"),
        "yaml": (".nan", ".inf", "1.0e+400", "1" + "0" * 400, "true", "ten", "[]", "{}", "1:30", "2024-01-01", "null"),
        "json": ("NaN", "Infinity", "1e400", "1" + "0" * 400, "true", '"ten"', "[]", "{}", "null"),
    }[suffix]
    for bad in (*endless, *map(str, number.outside)):
        path.write_text(in_file(number.key, bad, suffix))
        if bad == "1:30":
            with pytest.raises(ConfigError, match=r"line .*, column .*: a number that is not decimal"):
                load({}, {}, tmp_path)
        else:
            refused(tmp_path, number.key)
    path.write_text(in_file(number.key, str(number.most), suffix))
    assert value_of(load(NATS, {}, tmp_path), number.key) == number.most


def in_file(key: str, value: str, suffix: str) -> str:
    section, _, name = key.rpartition(".")
    match suffix:
        case "toml":
            return (f"[{section}]\n" if section else "") + f"{name} = {value}\n"
        case "yaml":
            return f"{section}:\n  {name}: {value}\n" if section else f"{name}: {value}\n"
        case _:
            inner = f'{{"{name}": {value}}}'
            return f'{{"{section}": {inner}}}' if section else inner


@pytest.mark.parametrize("number", [each for each in NUMBERS if each.key in PLAIN_FLAGS], ids=lambda number: number.key)
def test_a_flag_is_held_to_the_same(number: Number, tmp_path: Path) -> None:
    for bad in (*number.outside, *ENDLESS, "ten", ""):
        refused(tmp_path, number.key, {number.key: str(bad)})
    assert value_of(load(NATS | {number.key: str(number.most)}, {}, tmp_path), number.key) == number.most


class Live:
    """What `admin set` needs of a running server: its configuration."""

    def __init__(self, config: ServerConfig) -> None:
        self.config = config
        self.applied: list[ServerConfig] = []

    def apply(self, fresh: ServerConfig) -> None:
        self.applied.append(fresh)


@pytest.mark.parametrize("number", [each for each in NUMBERS if each.key in SETTABLE], ids=lambda number: number.key)
def test_admin_set_is_held_to_the_same(number: Number, tmp_path: Path) -> None:
    live = Live(load({}, {}, tmp_path))
    scope: Any = type("Scope", (), {"live": live})
    raw: tuple[Any, ...] = (True, None, [], {}, float("inf"), float("nan"), 10**400, 1.5)
    for bad in (*map(str, number.outside), *ENDLESS, "ten", "", *number.outside, *raw):
        with pytest.raises(Refused) as failure:
            change(scope, {"key": number.key, "value": bad})
        assert str(failure.value).startswith(f"{number.key}: "), failure.value
        assert "is invalid (" not in str(failure.value)
    assert live.applied == []
    change(scope, {"key": number.key, "value": str(number.most)})
    assert value_of(live.applied[0], number.key) == number.most


@pytest.mark.parametrize("key", [key.name for key in keys_of(ServerConfig)])
def test_an_empty_variable_counts_as_unset(key: str, tmp_path: Path) -> None:
    assert load({}, {variable(key): ""}, tmp_path) == load({}, {}, tmp_path)
    assert load({}, {variable(key) + "__0": "", variable(key) + "_FILE": ""}, tmp_path) == load({}, {}, tmp_path)


def test_an_empty_variable_leaves_the_file_in_force(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config/server.toml").write_text("port = 1001\n")
    assert load({}, {P + "PORT": ""}, tmp_path).port == 1001
