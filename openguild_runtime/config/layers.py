"""The layers of the configuration, files, environment and flags, merged into one nested dict.

pydantic-settings is not used, because it cannot read indexed lists from the environment (PROTOCOL 11.4.2), refuse unknown
environment names, or read secrets from `*_FILE`.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError

from openguild_runtime.config.declared import keys_of
from openguild_runtime.config.files import BadFile, read_file, read_text

PREFIX = "OPENGUILD_SERVER__"
FALLBACKS = {
    "DATABASE_URL": "database_url",
    "NATS_URL": "nats.url",
    "MEDIA_ENDPOINT": "media.endpoint",
    "MEDIA_BUCKET": "media.bucket",
    "MEDIA_ACCESS_KEY": "media.access_key",
    "MEDIA_SECRET_KEY": "media.secret_key",
}
BROUGHT = frozenset({"database_url", "nats.url"})  # set by an embedded server itself
MAX_INDEX_DIGITS = 4  # for a list in the environment
MAX_COMPARED_CHARS = 100  # for suggestions for a misspelt key
_NUMBER = re.compile(r"\s*[-+]?[0-9.][0-9._eE]*\s*")
STEMS = ("server", "server.local")  # in `config/`; the second overrides the first
READ_SUFFIXES = (".toml", ".yaml", ".json")
REFUSED_SUFFIXES = (".ini", ".ron", ".json5", ".yml")


class ConfigError(Exception):
    """A line for each fault: the key, the problem of its value, and the fix. Never contains a secret.

    The text is the first line, with the number of the others.
    """

    def __init__(self, *lines: str) -> None:
        """Escape unprintable characters, such as a line break in a key of a file."""
        self.lines = tuple(
            "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in line) for line in lines
        )
        more = f" ({len(lines) - 1} more: `openguild-server config check` lists them)" if len(lines) > 1 else ""
        super().__init__(self.lines[0] + more)


class Problems:
    """Collects ConfigErrors, so that all faults are reported at once."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Collect a ConfigError of the block, and continue after the block."""
        try:
            yield
        except ConfigError as problem:
            self.lines += problem.lines

    def raise_all(self) -> None:
        """Raise a ConfigError with all collected lines, if there are any."""
        if self.lines:
            raise ConfigError(*dict.fromkeys(self.lines))


def nearest(key: str, model: type) -> str:
    """Return a hint for an unknown key, such as `; did you mean messaging.replay_window?`."""
    known = [key.name for key in keys_of(model)]
    sections = {name.rpartition(".")[0] for name in known} - {""}
    bare = key.removeprefix("server.")
    if key == "server" or (bare != key and bare in {*known, *sections}):
        return "; write the keys at the top level, without `server` before them"
    if key in known:  # quoted in a file, as a name with a dot
        return f"; write {key.rpartition('.')[2]} into the section {key.rpartition('.')[0]}"
    close = difflib.get_close_matches(key.lower()[:MAX_COMPARED_CHARS], [*known, *sorted(sections)], n=1)
    return f"; did you mean {close[0]}?" if close else "; `openguild-server config dump` lists the keys"


class MergedConfig(NamedTuple):
    """The merged layers: nested `values` for the model, and in `sources`, by dotted key, where each was set."""

    values: dict[str, Any]
    sources: dict[str, str]


def collect(
    flags: Mapping[str, Any], environ: Mapping[str, str], directory: Path, model: type, problems: Problems
) -> MergedConfig:
    """Merge all layers. Unreadable files, quoted numbers and unknown environment names are added to `problems` and left out."""
    collected = MergedConfig({}, {})
    plain = {key.name for key in keys_of(model) if key.field.annotation in (int, float)}
    for stem in STEMS:
        _read_files(collected, directory / "config", stem, plain, problems)
    _from_environment(collected, environ, model, problems)
    for known in keys_of(model):
        value = flags.get(known.name)
        if value is not None:
            with problems.noting():
                _put(collected, known.name, value, known.flag)
    with problems.noting():
        _fall_back(collected, environ)
    return collected


def asked_log_format(flags: Mapping[str, Any], environ: Mapping[str, str], directory: Path) -> str | None:
    """Return the configured `log_format` even if other keys are invalid, or None if it is not set or cannot be read."""
    asked = flags.get("log_format") or next(
        (text for name, text in environ.items() if text and name.upper() == f"{PREFIX}LOG_FORMAT"), None
    )
    collected = MergedConfig({}, {})
    if asked is None:
        for stem in STEMS:
            _read_files(collected, directory / "config", stem, set(), Problems())
        asked = collected.values.get("log_format")
    return asked.lower() if isinstance(asked, str) else None


def overridden_names(environ: Mapping[str, str]) -> list[str]:
    """Return the environment names that set keys, for the start-up log. Values are never shown."""
    return sorted(
        name for name, text in environ.items() if text and (name.upper().startswith(PREFIX) or name in FALLBACKS)
    )


def ignored_names(environ: Mapping[str, str]) -> list[str]:
    """Return the fallback names that are set but that an embedded server ignores, because it sets these keys itself."""
    names = (variant for name, key in FALLBACKS.items() if key in BROUGHT for variant in (name, f"{name}_FILE"))
    return [name for name in names if environ.get(name)]


def _fall_back(collected: MergedConfig, environ: Mapping[str, str]) -> None:
    """Apply FALLBACKS such as `DATABASE_URL` to keys that no layer has set."""
    embedded = _is_on(collected.values.get("embedded"))
    for name, key in FALLBACKS.items():
        if key in collected.sources or (embedded and key in BROUGHT):
            continue
        text = environ.get(name)
        if text:
            _put(collected, key, text, name)
        elif text := _from_file(f"{name}_FILE", environ.get(f"{name}_FILE")):
            _put(collected, key, text, f"{name}_FILE")


def _is_on(value: Any) -> bool:
    try:
        return TypeAdapter(bool).validate_python(value)
    except ValidationError:  # the model reports the problem
        return False


# --- files -------------------------------------------------------------------------------------------


def _read_files(collected: MergedConfig, directory: Path, stem: str, numbers: set[str], problems: Problems) -> None:
    for suffix in REFUSED_SUFFIXES:
        path = directory / f"{stem}{suffix}"
        if os.path.lexists(path):
            problems.lines.append(
                f"failed to build configuration: {path.name}: unsupported format; use {stem}.toml, .yaml or .json"
            )
    for suffix in READ_SUFFIXES:
        path = directory / f"{stem}{suffix}"
        if not os.path.lexists(path):  # a broken link counts as a file, and is refused
            continue
        with problems.noting():
            _read(collected, path, numbers, problems)


def _read(collected: MergedConfig, path: Path, numbers: set[str], problems: Problems) -> None:
    source = f"config/{path.name}"
    try:
        content = read_file(path)
    except BadFile as problem:
        raise ConfigError(f"failed to build configuration: {path}{problem}") from None
    try:
        problems.lines += [
            f"failed to build configuration: {key}: is a number in quotes; remove the quotes (set by {source})"
            for key in _take_quoted(content, numbers)
        ]
        _merge(collected, collected.values, content, source)
    except RecursionError:  # a recursive YAML anchor
        raise ConfigError(
            f"failed to build configuration: {path}: contains a section that refers to itself; remove the reference"
        ) from None


def _take_quoted(content: dict[Any, Any], numbers: set[str], prefix: str = "") -> list[str]:
    """Remove quoted numbers and return their keys. Only for files: in the environment all values are strings."""
    found = []
    for name, value in list(content.items()):
        key = f"{prefix}{name}"
        if isinstance(value, dict):
            found += _take_quoted(value, numbers, f"{key}.")
        elif isinstance(value, str) and key in numbers and _NUMBER.fullmatch(value):
            del content[name]
            found.append(key)
    return found


def _merge(
    collected: MergedConfig, into: dict[str, Any], more: Mapping[Any, Any], source: str, prefix: str = ""
) -> None:
    """Merge `more`: sections are merged, values replaced. Raises ConfigError if a key is a section and a value."""
    for name, value in more.items():
        key = f"{prefix}{name}"
        former = into.get(name)
        if former is not None and isinstance(former, dict) != isinstance(value, Mapping):
            raise ConfigError(
                f"failed to build configuration: {key}: is a section, not a value; write its keys under it "
                f"(set by {source if isinstance(former, dict) else collected.sources[key]})"
            )
        collected.sources[key] = source
        if isinstance(value, Mapping):
            _merge(collected, into.setdefault(str(name), {}), value, source, f"{key}.")
        else:
            into[str(name)] = value


# --- environment -------------------------------------------------------------------------------------


def _from_environment(collected: MergedConfig, environ: Mapping[str, str], model: type, problems: Problems) -> None:
    keys = list(keys_of(model))
    known = {key.name for key in keys}
    lists = {key.name for key in keys if key.is_list}
    secrets = {key.name for key in keys if key.is_secret}
    indexed: dict[str, dict[int, Any]] = {}
    named: dict[str, str] = {}
    spelt = {key.name.replace(".", "_"): key.name for key in keys}
    for name in sorted(environ):
        with problems.noting():
            if not (name.upper().startswith(PREFIX) and environ[name]):  # an empty value counts as unset
                _refuse_single_underscores(name, environ[name], spelt)
                continue
            key, text = name[len(PREFIX) :].lower().replace("__", "."), environ[name]
            if key.endswith("_file") and key not in known and key.removesuffix("_file") in secrets:
                key, text = key.removesuffix("_file"), _from_file(name, text) or ""
            base = next((listed for listed in lists if key.startswith(listed + ".")), None)
            other = named.setdefault(key, name)
            if other != name:
                raise ConfigError(
                    f"failed to build configuration: {key}: is set by {other} and by {name}; remove one of them"
                )
            if base is not None:
                _put_indexed(indexed.setdefault(base, {}), name, key[len(base) + 1 :], text)
            elif key in lists:
                _put(collected, key, [part.strip() for part in text.split(",") if part.strip()], name)
            elif key in known:
                _put(collected, key, text, name)
            else:
                raise ConfigError(f"failed to build configuration: {name}: unknown key{nearest(key, model)}")
    for base, entries in indexed.items():
        with problems.noting():
            _put_list(collected, base, entries, named.get(base))


def _refuse_single_underscores(name: str, text: str, spelt: Mapping[str, str]) -> None:
    """Raise ConfigError for names such as `OPENGUILD_SERVER_PORT=9000`, which would have no effect.

    Kubernetes sets `OPENGUILD_SERVER_PORT=tcp://...` for a Service, which is ignored.
    """
    stem = PREFIX.removesuffix("_")
    key = spelt.get(name[len(stem) :].lower().replace("__", "_")) if name.upper().startswith(stem) else None
    if key is not None and text and not text.startswith(("tcp://", "udp://")):
        meant = PREFIX + key.upper().replace(".", "__")
        raise ConfigError(f"failed to build configuration: {name}: unknown name; did you mean {meant}?")


def _put_indexed(entries: dict[int, Any], name: str, rest: str, text: str) -> None:
    index, _, member = rest.partition(".")
    if not (index.isascii() and index.isdigit() and len(index) <= MAX_INDEX_DIGITS and str(int(index)) == index):
        raise ConfigError(
            f"failed to build configuration: {name}: a list is set by index, as ...__0, or as a comma-separated value"
        )
    entry = entries.setdefault(int(index), {} if member else text)
    if member and isinstance(entry, dict):
        entry[member] = text
    elif member or entry is not text:
        raise ConfigError(
            f"failed to build configuration: {name}: its entry is also set as a whole; remove one of them"
        )


def _put_list(collected: MergedConfig, key: str, entries: dict[int, Any], whole: str | None) -> None:
    """Set a list given by index, which must have all entries from 0. `whole` is a name that sets the whole list too."""
    name = PREFIX + key.upper().replace(".", "__")
    if whole is not None:
        raise ConfigError(
            f"failed to build configuration: {key}: is set by {whole} and by {name}__{min(entries)}; remove one of them"
        )
    missing = next((index for index in range(len(entries)) if index not in entries), None)
    if missing is not None:
        raise ConfigError(
            f"failed to build configuration: {key}: {name}__{missing} is missing before {name}__{max(entries)}; "
            "number the entries from 0 without gaps"
        )
    _put(collected, key, [entries[index] for index in sorted(entries)], f"{name}__...")


def _from_file(name: str, path: str | None) -> str | None:
    if not path:
        return None
    try:
        return read_text(Path(path)).strip()
    except BadFile as problem:
        raise ConfigError(f"failed to build configuration: {name}: the file that it names{problem}") from None


def _put(collected: MergedConfig, key: str, value: Any, source: str) -> None:
    """Set a key of the environment or the command line. Raises ConfigError for invalid UTF-8, which are lone surrogates there."""
    if any("\ud800" <= sign <= "\udfff" for sign in str(value)):
        raise ConfigError(f"failed to build configuration: {key}: is not UTF-8; write it as UTF-8 (set by {source})")
    *parents, last = key.split(".")
    nested: dict[str, Any] = {last: value}
    for parent in reversed(parents):
        nested = {parent: nested}
    _merge(collected, collected.values, nested, source)
