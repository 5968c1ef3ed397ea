"""Reads the configuration's files: TOML, YAML and JSON. An error is one line: file, line, column, problem.

A parser's message may quote a value, which may be a secret, so quoted parts are left out.
"""

from __future__ import annotations

import json
import os
import re
import stat
import tomllib
from pathlib import Path
from typing import Any

import yaml

MAX_FILE_BYTES = 1024 * 1024
MAX_DIGITS = 4_300  # in a number: Python's limit (sys.int_info)

_TOML_PLACE = re.compile(r" \(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\)$")
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"|\([^)]*\)")
_MARKS = re.compile(r"'(<.*>|.{1,2})'")  # expected tokens, such as ']' and '<block end>'
_LONG_NUMBER = re.compile(rf"\d[\d_]{{{MAX_DIGITS},}}")


class BadFile(Exception):
    """The problem of a file and the fix, without its name."""


def read_text(path: Path) -> str:
    """Read a UTF-8 file of at most 1 MiB, with or without a byte order mark. Line ends are kept. Raises BadFile."""
    try:
        with path.open("rb") as file:
            if stat.S_ISDIR(os.fstat(file.fileno()).st_mode):
                raise IsADirectoryError
            data = file.read(MAX_FILE_BYTES + 1)
    except IsADirectoryError:
        raise BadFile(": is a directory, not a file; replace it with a file, or remove it") from None
    except OSError as failure:
        reason = (failure.strerror or type(failure).__name__).lower()
        raise BadFile(f": cannot be read ({reason}); check the path and its permissions") from None
    if len(data) > MAX_FILE_BYTES:
        raise BadFile(f": has more than {MAX_FILE_BYTES} bytes; is it the right file?")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as failure:
        line = data.count(b"\n", 0, failure.start) + 1
        raise BadFile(f", line {line}: is not UTF-8; save it as UTF-8") from None


def read_file(path: Path) -> dict[str, Any]:
    """Return the mapping of keys in a `.toml`, `.yaml` or `.json` file. Raises BadFile."""
    text = read_text(path)
    try:
        content = _PARSERS[path.suffix](text)
    except RecursionError:
        raise BadFile(": is nested too deeply; write sections, keys and values") from None
    except (ValueError, OverflowError):  # a number with too many digits, whose position the parsers do not report
        long = _LONG_NUMBER.search(text)
        raise _at(text, long.start() if long else 0, "a value that cannot be parsed") from None
    if not isinstance(content, dict):
        raise BadFile(": must contain a mapping of keys to values")
    return content


def _parse_toml(text: str) -> Any:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as fault:
        place = _TOML_PLACE.search(str(fault))
        problem = _TOML_PLACE.sub("", str(fault))
        if place is None or place["line"] is None:
            raise _at(text, len(text.rstrip()), problem) from None
        raise _bad(int(place["line"]), int(place["column"]), problem) from None


def _parse_json(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except json.JSONDecodeError as fault:
        raise _bad(fault.lineno, fault.colno, fault.msg.removesuffix(" at").removesuffix(" starting")) from None
    except _Repeated:
        _parse_yaml(text.replace("\t", " "))  # read as YAML, whose parser reports the position
        raise BadFile(": duplicate key in a section; keep one of them") from None


class _Repeated(Exception):
    """A JSON object has a name twice."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(members := dict(pairs)) < len(pairs):
        raise _Repeated
    return members


class _Loader(yaml.SafeLoader):
    """Refuses duplicate keys, and reports the position of invalid values."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            name = (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else None
            if name in seen:
                raise yaml.MarkedYAMLError(
                    problem="duplicate key in a section; keep one of them", problem_mark=key.start_mark
                )
            if name is not None:
                seen.add(name)
        return super().construct_mapping(node, deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, OverflowError):
            raise yaml.MarkedYAMLError(problem="a value that cannot be parsed", problem_mark=node.start_mark) from None


def _decimal(loader: _Loader, node: yaml.ScalarNode) -> Any:
    """Return a number, and refuse those that are not decimal: YAML 1.1 reads 1:30 as 90 and 010 as 8."""
    if ":" in node.value or re.fullmatch(r"[-+]?0[0-9_]+", node.value):
        raise yaml.MarkedYAMLError(problem="a number that is not decimal", problem_mark=node.start_mark)
    return loader.construct_yaml_int(node) if node.tag.endswith("int") else loader.construct_yaml_float(node)


for _kind in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _decimal)


def _parse_yaml(text: str) -> Any:
    try:
        content = yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except yaml.reader.ReaderError as fault:
        raise _at(text, fault.position, "a character that is not allowed there") from None
    except yaml.MarkedYAMLError as fault:
        mark = fault.problem_mark or fault.context_mark
        problem = fault.problem or fault.context or "not YAML"
        raise _bad(mark.line + 1 if mark else 1, mark.column + 1 if mark else 1, problem) from None
    return {} if content is None else content  # empty, or only comments


_PARSERS = {".toml": _parse_toml, ".yaml": _parse_yaml, ".json": _parse_json}


def _at(text: str, offset: int, problem: str) -> BadFile:
    line = text.count("\n", 0, offset) + 1
    return _bad(line, offset - (text.rfind("\n", 0, offset) + 1) + 1, problem)


def _bad(line: int, column: int, problem: str) -> BadFile:
    shown = _QUOTED.sub(lambda quoted: quoted[0] if _MARKS.fullmatch(quoted[0]) else "...", problem)
    words = " ".join(shown.split())
    return BadFile(f", line {line}, column {column}: {words[:1].lower()}{words[1:]}; correct the syntax there")
