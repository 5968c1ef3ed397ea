"""Explains a wrong shape of a body or frame to client authors, because msgspec's messages use Python's terms."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from msgspec.inspect import EnumType, ListType, LiteralType, StructType, Type, UnionType, type_info

from openguild_proto.errors import FieldProblem
from openguild_proto.schemas.fields import EVENT_ID_PATTERN, LAST, LOG_NAME_PATTERN, NONCE_PATTERN, UUID_PATTERN

UUID_FIELD_PATTERN = f"^{UUID_PATTERN}${LAST}"
MAX_PROBLEM_CHARS = 200

_PATH = re.compile(r" - at `\$(?:\.)?(?P<path>[^`]*)`$")
_MISSING = re.compile(r"Object missing required field `(?P<name>[^`]+)`")
_BOUND = re.compile(r"Expected `(?P<kind>int|str|array)` (?P<length>of length )?(?P<end>[<>])= (?P<bound>-?[0-9]+)")
_KINDS = re.compile(r"Expected `(?P<kinds>(?:int|str|float|bool|object|array|null)(?: \| (?:\w+))*)`(?:, got `\w+`)?")

_WORDS = {
    "str": "a string",
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "object": "an object",
    "array": "an array",
}
_FORMS = {
    UUID_FIELD_PATTERN: "must be a UUID in lower case with hyphens",
    EVENT_ID_PATTERN + LAST: "must be an event id",
    LOG_NAME_PATTERN + LAST: "must be channel:, guild: or user: and an id",
    NONCE_PATTERN + LAST: "must be 1 to 64 visible ASCII characters",
}
_NO_SUCH_VALUE = ("Invalid enum value", "Invalid value")
_NAMES = re.compile(r"[.\[][^.\[\]]*\]|\.")  # separators of a path: dots and list indices
_UNITS = {"str": " characters long", "array": " entries long"}


def shape_problem(message: str, whole: str, kind: Any) -> FieldProblem:
    """Return the field and the fault from a message of msgspec. `whole`: the field to use if it names none.

    `kind`: the decoded type, from which the allowed values are read.
    """
    at = _PATH.search(message)
    path = at["path"] if at else ""
    text = _PATH.sub("", message)
    missing = _MISSING.fullmatch(text)
    if missing is not None:
        return FieldProblem(f"{path}.{missing['name']}" if path else missing["name"], "must be provided")
    if text.startswith(_NO_SUCH_VALUE):
        values = sorted(_values(_info(kind), [name for name in _NAMES.split(path) if name]))
        return FieldProblem(path or whole, f"must be one of: {', '.join(values)}"[:MAX_PROBLEM_CHARS])
    return FieldProblem(path or whole, _sentence(text)[:MAX_PROBLEM_CHARS])


@cache
def _info(kind: Any) -> Type:
    return type_info(kind)


def _values(kind: Type, path: list[str]) -> set[str]:
    """Return the allowed values of a type, or of its member at `path`."""
    match kind:
        case UnionType(types=types):
            return set().union(*(_values(each, path) for each in types))
        case ListType(item_type=item):
            return _values(item, path)
        case StructType(tag_field=name, tag=tag) if path == [name]:
            return {str(tag)}
        case StructType(fields=fields) if path:
            return set().union(*(_values(each.type, path[1:]) for each in fields if each.encode_name == path[0]))
        case LiteralType(values=values) if not path:
            return {str(value) for value in values}
        case EnumType(cls=cls) if not path:
            return {str(each.value) for each in cls}
    return set()


def _sentence(text: str) -> str:
    bound = _BOUND.fullmatch(text)
    if bound is not None:
        if bound["length"] and bound["end"] == ">" and bound["bound"] == "1":
            return "must not be empty"
        unit = _UNITS[bound["kind"]] if bound["length"] else ""
        return f"must be at {'most' if bound['end'] == '<' else 'least'} {bound['bound']}{unit}"
    kinds = _KINDS.fullmatch(text)
    if kinds is not None:
        words = [_WORDS[kind] for kind in kinds["kinds"].split(" | ") if kind in _WORDS]
        return f"must be {' or '.join(words)}"
    return next((form for pattern, form in _FORMS.items() if text.endswith(repr(pattern))), text)
