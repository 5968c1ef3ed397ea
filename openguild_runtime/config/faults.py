"""Formats pydantic's finding about the configuration as one line: the key, the problem, the fix, where it is set.

Lines begin with the words of earlier releases if they had such an error, because scripts look for them (PROTOCOL 13.2.1).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from openguild_proto.settings.setting import Contradiction, Contradictions
from openguild_runtime.config.declared import ConfigKey, model_of, section_of
from openguild_runtime.config.layers import nearest
from openguild_runtime.config.values import EXAMPLE

# The problem of a value of the wrong kind, and the fix.
_KINDS = {
    "bool_parsing": "is not a boolean; write true or false",
    "bool_type": "is not a boolean; write true or false",
    "int_parsing": "is not an integer; write one, such as {example}",
    "int_parsing_size": "is not an integer, or has too many digits; write one, such as {example}",
    "int_type": "is not an integer; write one, such as {example}",
    "int_from_float": "is not an integer; write one, such as {example}",
    "float_parsing": "is not a number; write one, such as {example}",
    "float_type": "is not a number; write one, such as {example}",
    "finite_number": "is not a finite number; write one, such as {example}",
    "string_type": "is not a string; put it in quotes",
    "path_type": "is not a path; put it in quotes",
    "tuple_type": 'is not a list; write one, such as ["a", "b"]',
    "missing": "is missing; set it, or remove the entry",
}
_UNITS = {"secs": "seconds", "bytes": "bytes"}  # by the last part of a key's name
_BOUNDS = {"greater_than", "greater_than_equal", "less_than", "less_than_equal"}
_SECTION = {"model_type", "model_attributes_type", "dict_type"}


def lines_of(
    failure: ValidationError, model: type, sources: Mapping[str, str], *, without_contradictions: bool = False
) -> list[str]:
    """Return a line for each problem. `sources` tells where each key was set."""
    lines = []
    for problem in failure.errors(include_url=False, include_input=False):
        location = ".".join(str(part) for part in problem["loc"])
        error = problem.get("ctx", {}).get("error")
        if isinstance(error, Contradiction | Contradictions):
            found = error.found if isinstance(error, Contradictions) else (error,)
            if not without_contradictions:
                lines += [str(each) + _set_by(each.keys, sources) for each in found]
            continue
        text = _words(problem["type"], problem["msg"], problem.get("ctx", {}), location, model)
        lines.append(_with_key(problem["type"], location, text) + _set_by((location,), sources))
    return lines


def in_words(failure: ValidationError, model: type) -> str:
    """Return the first problem without its key, for a single value of `model`, a section."""
    problem = failure.errors(include_url=False, include_input=False)[0]
    location = ".".join(str(part) for part in problem["loc"])
    return _words(problem["type"], problem["msg"], problem.get("ctx", {}), location, model)


def _with_key(kind: str, location: str, text: str) -> str:
    if location.startswith("messaging.") and kind == "greater_than":
        return f"invalid messaging configuration: {location} must be greater than zero"
    if location.startswith("session.") and "key" in location and kind != "extra_forbidden":
        return f"invalid session key material: {location}: {text}; make one with `openguild-server keygen`"
    if location == "federation.signing_key":
        return f"invalid federation configuration: {location}: {text}; make one with `openguild-server keygen`"
    if location in {"bind_addr", "host", "port"}:
        return f"invalid bind address: {location}: {text}"
    if location.startswith("federation.trusted_servers"):
        return f"invalid federation configuration: {location}: {text}"
    return f"failed to build configuration: {location}: {text}"


def _words(kind: str, message: str, context: Mapping[str, Any], location: str, model: type) -> str:
    if kind == "value_error":
        return message.removeprefix("Value error, ").replace(EXAMPLE, _example(_field(location, model)))
    if kind == "extra_forbidden":
        return f"unknown key{nearest(location, model)}"
    if kind == "literal_error":
        return f"unknown value; expected {context['expected']}"
    field = _field(location, model)
    if kind in _SECTION:
        section = section_of(field)
        names = ", ".join(model_of(section).model_fields) if section is not None else "keys"
        return f"is a section, not a value; write its keys under it: {names}"
    if kind in _BOUNDS and field is not None:
        return f"must be {_range(field)}"
    text = _KINDS.get(kind, f"is invalid ({message}); docs/configuration.md lists the allowed values")
    text = text.replace(EXAMPLE, _example(field))
    unit = _UNITS.get(location.rpartition("_")[2])
    return text if unit is None else text.replace("write one, such as", f"write {unit} without a unit, such as")


def _example(field: FieldInfo | None) -> str:
    """Return an example of a number for the key: its default, or 10."""
    default = field.default if field is not None else None
    is_number = isinstance(default, int | float) and not isinstance(default, bool)
    return f"{default:g}" if is_number and default else "10"


def _field(location: str, model: type) -> FieldInfo | None:
    """Return the field of a dotted key. Indices of lists are skipped."""
    field: FieldInfo | None = None
    section: type | None = model
    for part in location.split("."):
        if part.isdigit():
            continue
        field = model_of(section).model_fields.get(part) if section is not None else None
        section = section_of(field)
    return field


def allowed(key: ConfigKey) -> str:
    """Return the range of a number, such as `at least 0 and at most 3600`, or "" for other values."""
    return _range(key.field)


def _range(field: FieldInfo) -> str:
    words = (("gt", "more than"), ("ge", "at least"), ("lt", "less than"), ("le", "at most"))
    bounds = [f"{text} {getattr(rule, name)}" for name, text in words for rule in field.metadata if hasattr(rule, name)]
    return " and ".join(bounds)


def _set_by(keys: tuple[str, ...], sources: Mapping[str, str]) -> str:
    """Return ` (set by ...)`, for an entry of a list where the list is set, or ""."""
    found = {key: sources[key] for key in keys if key in sources}
    for key in keys:
        if key not in found:
            base = max((known for known in sources if key.startswith(known + ".")), key=len, default="")
            if base:
                found[base] = sources[base]
    if not found:
        return ""
    if len(keys) == 1:
        return f" (set by {next(iter(found.values()))})"
    return f" ({', '.join(f'{key} is set by {source}' for key, source in found.items())})"
