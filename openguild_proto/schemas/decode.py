"""Decodes untrusted bodies, queries and path parameters to typed values. Every fault raises a typed Refusal."""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn, TypeVar
from urllib.parse import unquote_to_bytes

import msgspec

from openguild_proto.errors import ErrorCode, FieldProblem, Refusal
from openguild_proto.http.message import JSON, Request
from openguild_proto.limits import MAX_JSON_CONTAINERS, MAX_JSON_DEPTH, MAX_SAFE_INTEGER, MAX_SEQUENCE
from openguild_proto.schemas.shapes import shape_problem

T = TypeVar("T")

_MEDIA_TYPE = re.compile(r"application/(json|[a-z0-9!#$&^_.-]+\+json)")
_CANONICAL = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_HEX32 = re.compile(r"[0-9a-fA-F]{32}")
_HYPHENATED = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}")
# Possessive, and an unterminated string extends to the end, so matching is linear.
_STRUCTURE = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)
_INTEGER = re.compile(r"(-?)([0-9]+)", re.ASCII)


def decode_body(request: Request, kind: type[T], *, required: bool = True) -> T:
    """Decode the JSON body as `kind`, a msgspec Struct. Unknown members are ignored (PROTOCOL 3.3.4).

    Raises Refusal: 415 for another media type or a content coding; 400 `invalid_json` for invalid JSON, too many or too deep
    containers, and lone surrogates; 400 `validation_error` with the field for a wrong type or a repeated member.
    `required` False: an empty body counts as `{}`.
    """
    if not request.body and not required:
        return msgspec.convert({}, kind)
    _check_media_type(request)
    value = parse_json(request.body)
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as fault:
        raise Refusal(ErrorCode.VALIDATION, details=(shape_problem(str(fault), "body", kind),)) from None


def _check_media_type(request: Request) -> None:
    if (request.header("content-encoding") or "identity").lower() != "identity":
        raise Refusal(ErrorCode.UNSUPPORTED_MEDIA_TYPE, "send the body without a content coding")
    values = request.all_headers("content-type")
    if values == [JSON]:
        return
    media_type = values[0].partition(";")[0].strip().lower() if len(values) == 1 else ""
    if _MEDIA_TYPE.fullmatch(media_type) is None:
        raise Refusal(ErrorCode.UNSUPPORTED_MEDIA_TYPE)


def parse_json(body: bytes) -> Any:
    """Parse strict JSON: UTF-8, no NaN, no lone surrogates, no repeated members, bounded structure. Raises Refusal."""
    texts = _parse_texts(body)
    if texts is not None:
        return texts
    if body.count(b"[") + body.count(b"{") > MAX_JSON_DEPTH:  # counts strings too, so check exactly
        _check_structure(body)
    try:
        value = _DECODER.decode(body.decode())
    except Refusal:
        raise
    except (ValueError, RecursionError):
        raise Refusal(ErrorCode.INVALID_JSON) from None
    if b"\\u" in body:
        _check_surrogates(value)
    return value


def _parse_texts(body: bytes) -> dict[str, str | bool | None] | None:
    """Parse an object without numbers or nested containers, as most bodies are. Much faster than the full parser.

    Return None for any other value, for invalid JSON, and if a string contains a colon: only the count of colons shows here
    that no name is repeated.
    """
    try:
        value = _TEXTS.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return value if len(value) == body.count(b":") else None


def _check_structure(body: bytes) -> None:
    """Check the depth and the number of objects and arrays before parsing, in one scan without recursion. Raises Refusal."""
    depth = found = 0
    for matched in _STRUCTURE.finditer(body):
        token = matched[0]
        if token in (b"[", b"{"):
            depth += 1
            found += 1
            if found > MAX_JSON_CONTAINERS:
                raise Refusal(
                    ErrorCode.INVALID_JSON, f"the body has more than {MAX_JSON_CONTAINERS} objects and arrays"
                )
            if depth > MAX_JSON_DEPTH:
                raise Refusal(ErrorCode.INVALID_JSON, f"the body is nested deeper than {MAX_JSON_DEPTH}")
        elif token in (b"]", b"}"):
            depth -= 1


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for name, value in pairs:
        if name in members:
            _check_surrogates(name)  # the refusal contains the name, which must be encodable
            raise Refusal(ErrorCode.VALIDATION, details=(FieldProblem(name[:64], "must not be repeated"),))
        members[name] = value
    return members


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _number(text: str) -> float | int:
    """Return an int for an integer in any notation, such as 1e3: JSON has one number type (RFC 8259 6)."""
    value = float(text)
    return int(value) if value.is_integer() and abs(value) <= MAX_SAFE_INTEGER else value


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_number)


_TEXTS = msgspec.json.Decoder(dict[str, str | bool | None])


def _check_surrogates(value: Any) -> None:
    try:
        msgspec.json.encode(value)
    except UnicodeEncodeError:
        raise Refusal(ErrorCode.INVALID_JSON, "the body contains a lone surrogate") from None


def parse_uuid(text: str) -> str | None:
    """Parse a UUID (hyphenated, simple, braced or URN, any case). Return it hyphenated in lower case, or None if it is invalid."""
    if _CANONICAL.fullmatch(text):
        return text
    lowered = text.lower().removeprefix("urn:uuid:")
    if lowered.startswith("{") and lowered.endswith("}"):
        lowered = lowered[1:-1]
    if _HYPHENATED.fullmatch(lowered):
        return lowered
    if _HEX32.fullmatch(lowered):
        return f"{lowered[:8]}-{lowered[8:12]}-{lowered[12:16]}-{lowered[16:20]}-{lowered[20:]}"
    return None


def decode_component(text: str, *, plus: bool = False) -> str | None:
    """Percent-decode a path segment or query part. Return None for invalid UTF-8 or an invalid escape."""
    if text.isalnum() and text.isascii():
        return text  # nothing to decode
    if plus:
        text = text.replace("+", " ")
    if "%" not in text and text.isascii():
        return text
    if re.search(r"%(?![0-9A-Fa-f]{2})", text):
        return None
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        return None


def parse_query(request: Request, *allowed: str) -> dict[str, str]:
    """Parse the query to a dict. Raises Refusal for a repeated, badly escaped or unknown parameter.

    Unknown parameters are refused so that a misspelt `limit` does not silently mean the default.
    """
    found: dict[str, str] = {}
    for part in request.query.split("&"):
        if not part:
            continue
        raw_name, _, raw_value = part.partition("=")
        name, value = decode_component(raw_name, plus=True), decode_component(raw_value, plus=True)
        if name is None or value is None:
            raise _query_problem("query", "is not valid percent-encoded UTF-8")
        if name not in allowed:
            raise _query_problem(name[:64], "unknown parameter")
        if name in found:
            raise _query_problem(name, "must not be repeated")
        found[name] = value
    return found


def parse_integer(name: str, text: str) -> int:
    """Parse a signed 64-bit decimal integer. Raises Refusal that names the parameter."""
    value = _decimal(name, text)
    if not -MAX_SEQUENCE - 1 <= value <= MAX_SEQUENCE:
        raise _not_integer(name)
    return value


def parse_clamped(name: str, text: str) -> int:
    """Parse a decimal integer, clamped to signed 64 bits. Raises Refusal that names the parameter."""
    return min(max(_decimal(name, text), -MAX_SEQUENCE - 1), MAX_SEQUENCE)


def _decimal(name: str, text: str) -> int:
    digits = _INTEGER.fullmatch(text)
    # 20 digits are out of range. Leading zeros are stripped here, because a pattern for them would backtrack.
    if digits is None:
        raise _not_integer(name)
    return int(digits[1] + (digits[2].lstrip("0")[:20] or "0"))


def _not_integer(name: str) -> Refusal:
    return _query_problem(name, "must be an integer")


def _query_problem(field: str, message: str) -> Refusal:
    return Refusal(ErrorCode.VALIDATION, details=(FieldProblem(field, message),))
