"""The layers under the configuration: files, environment, flags, merged into one nested dict.

Done here and not by pydantic-settings, which cannot read indexed lists from the environment (D-45), refuse an
unknown environment name, or follow `*_FILE` for secrets.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_origin

import yaml
from pydantic import BaseModel

PREFIX = "OPENGUILD_SERVER__"
FALLBACKS = {
    "DATABASE_URL": "database_url",
    "NATS_URL": "nats.url",
    "MEDIA_ENDPOINT": "media.endpoint",
    "MEDIA_BUCKET": "media.bucket",
    "MEDIA_ACCESS_KEY": "media.access_key",
    "MEDIA_SECRET_KEY": "media.secret_key",
}
SECRETS = frozenset(
    {
        "database_url",
        "nats.url",
        "session.signing_key",
        "federation.signing_key",
        "media.access_key",
        "media.secret_key",
    }
)
READ_SUFFIXES = (".toml", ".yaml", ".json")
REFUSED_SUFFIXES = (".ini", ".ron", ".json5", ".yml")


class ConfigError(Exception):
    """One line: the key, what is wrong with its value, how to mend it. Never holds a secret."""


def keys_of(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, bool]]:
    """Every dotted key of the model, and whether it is a list."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from keys_of(kind, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", get_origin(kind) is tuple


def nearest(key: str, model: type[BaseModel]) -> str:
    """A hint for a misspelt key, such as `; did you mean messaging.replay_window?`."""
    close = difflib.get_close_matches(key, [known for known, _ in keys_of(model)], n=1)
    return f"; did you mean {close[0]}?" if close else "; `openguild-server config dump` lists the keys"


def collect(
    flags: Mapping[str, Any], environ: Mapping[str, str], directory: Path, model: type[BaseModel]
) -> dict[str, Any]:
    """Merge all layers. Raises ConfigError for unreadable files and unknown environment names."""
    values: dict[str, Any] = {}
    for stem in ("server", "server.local"):
        _merge(values, _read_files(directory / "config", stem))
    _merge(values, _from_environment(environ, model))
    for key, value in flags.items():
        if value is not None:
            _put(values, key, value)
    return values


def overridden_names(environ: Mapping[str, str]) -> list[str]:
    """Environment names that set something, for the start-up log; values are never shown."""
    return sorted(name for name in environ if name.upper().startswith(PREFIX) or name in FALLBACKS)


# --- files -------------------------------------------------------------------------------------------


def _read_files(directory: Path, stem: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for suffix in REFUSED_SUFFIXES:
        path = directory / f"{stem}{suffix}"
        if path.exists():
            raise ConfigError(
                f"failed to build configuration: {path.name}: this format is not read; use {stem}.toml, .yaml or .json"
            )
    for suffix in READ_SUFFIXES:
        path = directory / f"{stem}{suffix}"
        if path.exists():
            _merge(values, _read_file(path))
    return values


def _read_file(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text()
        if path.suffix == ".toml":
            return tomllib.loads(text)
        content = yaml.safe_load(text) if path.suffix == ".yaml" else json.loads(text)
    except (OSError, ValueError, yaml.YAMLError) as failure:
        raise ConfigError(
            f"failed to build configuration: {path}: cannot be read ({type(failure).__name__}); check its syntax"
        ) from None
    if not isinstance(content, dict):
        raise ConfigError(f"failed to build configuration: {path}: must hold a mapping of keys")
    return content


def _merge(into: dict[str, Any], more: Mapping[str, Any]) -> None:
    for key, value in more.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = dict(value) if isinstance(value, Mapping) else value


# --- environment -------------------------------------------------------------------------------------


def _from_environment(environ: Mapping[str, str], model: type[BaseModel]) -> dict[str, Any]:
    lists = {key for key, is_list in keys_of(model) if is_list}
    known = {key for key, _ in keys_of(model)}
    values: dict[str, Any] = {}
    for name, key in FALLBACKS.items():
        text = environ.get(name) or _from_file(name, environ.get(f"{name}_FILE"))
        if text:
            _put(values, key, text)
    indexed: dict[str, dict[int, Any]] = {}
    for name in sorted(environ):
        if not name.upper().startswith(PREFIX):
            continue
        key, text = name[len(PREFIX) :].lower().replace("__", "."), environ[name]
        if key.endswith("_file") and key not in known and key.removesuffix("_file") in SECRETS:
            key, text = key.removesuffix("_file"), _from_file(name, text) or ""
        base = next((listed for listed in lists if key.startswith(listed + ".")), None)
        if base is not None:
            _put_indexed(indexed.setdefault(base, {}), name, key[len(base) + 1 :], text)
        elif key in lists:
            _put(values, key, [part.strip() for part in text.split(",") if part.strip()])
        elif key in known:
            _put(values, key, text)
        else:
            raise ConfigError(f"failed to build configuration: {name}: unknown key{nearest(key, model)}")
    for base, entries in indexed.items():
        _put(values, base, [entries[index] for index in sorted(entries)])
    return values


def _put_indexed(entries: dict[int, Any], name: str, rest: str, text: str) -> None:
    index, _, member = rest.partition(".")
    if not index.isdigit():
        raise ConfigError(
            f"failed to build configuration: {name}: a list is set by index, as ...__0, or as a comma-separated value"
        )
    if member:
        entries.setdefault(int(index), {})[member] = text
    else:
        entries[int(index)] = text


def _from_file(name: str, path: str | None) -> str | None:
    if path is None:
        return None
    try:
        return Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError):
        raise ConfigError(
            f"failed to build configuration: {name}: the file it names cannot be read; check path and permissions"
        ) from None


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
    values[last] = value
