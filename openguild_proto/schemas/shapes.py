"""Explains a wrong shape of a body or frame to authors of clients: msgspec's messages use Python's terms."""

from __future__ import annotations

import re

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
_UNITS = {"str": " characters long", "array": " entries long"}


def shape_problem(message: str, whole: str) -> FieldProblem:
    """Return the field and the fault that a message of msgspec names. `whole`: the field where it names none."""
    at = _PATH.search(message)
    path = at["path"] if at else ""
    text = _PATH.sub("", message)
    missing = _MISSING.fullmatch(text)
    if missing is not None:
        return FieldProblem(f"{path}.{missing['name']}" if path else missing["name"], "must be provided")
    return FieldProblem(path or whole, _sentence(text)[:MAX_PROBLEM_CHARS])


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
    if text.startswith(("Invalid enum value", "Invalid value")):
        return "is none of the values that it may have"
    return next((form for pattern, form in _FORMS.items() if text.endswith(repr(pattern))), text)
