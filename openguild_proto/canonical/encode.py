"""Canonical JSON (PROTOCOL 6.2): compact, object keys sorted by their UTF-8 bytes, minimal escapes, one form per number."""

from __future__ import annotations

import math
from json.encoder import encode_basestring as encode_text
from typing import Any

from openguild_proto.limits import MAX_JSON_DEPTH, MAX_SAFE_INTEGER

# `encode_text(str)`: minimal escapes; control characters as \u00xx in lower case
_MIN_I64, _MAX_U64 = -(2**63), 2**64 - 1


class CanonicalError(ValueError):
    """The value has no canonical form. The message gives the reason without quoting the value."""


def canonical_json(value: Any, *, strict: bool = True) -> bytes:
    """Encode a value. `strict`, for local events: only integers within ±(2^53-1) (PROTOCOL 6.2.4); else also doubles (6.2.5).

    Raises CanonicalError for NaN, infinities, lone surrogates, keys that are not text, and nesting deeper than 128.
    """
    parts: list[str] = []
    write_canonical(value, parts, strict=strict)
    return joined(parts)


def write_canonical(value: Any, parts: list[str], *, strict: bool = True) -> None:
    """Append the parts of the encoding. Raises CanonicalError as `canonical_json` does, except for lone surrogates."""
    _write(value, parts, strict, MAX_JSON_DEPTH)


def joined(parts: list[str]) -> bytes:
    """Return the bytes of an encoding. Raises CanonicalError for lone surrogates."""
    try:
        return "".join(parts).encode()
    except UnicodeEncodeError:
        raise CanonicalError("text contains a lone surrogate") from None


def _write(value: Any, parts: list[str], strict: bool, depth: int) -> None:
    if depth < 0:
        raise CanonicalError(f"nested deeper than {MAX_JSON_DEPTH}")
    if value is None:
        parts.append("null")
    elif value is True:
        parts.append("true")
    elif value is False:
        parts.append("false")
    elif isinstance(value, str):
        parts.append(encode_text(value))
    elif isinstance(value, int | float):
        parts.append(_number(value, strict))
    elif isinstance(value, dict):
        _write_object(value, parts, strict, depth)
    elif isinstance(value, list | tuple):
        parts.append("[")
        for position, item in enumerate(value):
            if position:
                parts.append(",")
            _write(item, parts, strict, depth - 1)
        parts.append("]")
    else:
        raise CanonicalError(f"{type(value).__name__} is not JSON")


def _write_object(value: dict[Any, Any], parts: list[str], strict: bool, depth: int) -> None:
    for key in value:
        if not isinstance(key, str):
            raise CanonicalError("an object key is not text")
    parts.append("{")
    # code point order is UTF-8 byte order
    comma = ""
    for key in sorted(value):
        item = value[key]
        if type(item) is str and depth:
            parts.append(f"{comma}{encode_text(key)}:{encode_text(item)}")
        else:
            parts.append(f"{comma}{encode_text(key)}:")
            _write(item, parts, strict, depth - 1)
        comma = ","
    parts.append("}")


def _number(value: float, strict: bool) -> str:
    if isinstance(value, int):
        if strict and abs(value) > MAX_SAFE_INTEGER:
            raise CanonicalError("an integer is outside ±(2^53-1)")
        if _MIN_I64 <= value <= _MAX_U64:
            return str(value)
        try:
            value = float(value)
        except OverflowError:
            raise CanonicalError("a number is out of range") from None
    if strict:
        raise CanonicalError("a number is not an integer")
    return format_double(value)


def format_double(value: float) -> str:
    """Return the shortest round-trip form: plain from 1e-5 up to below 1e16, else `1e16`, `1.5e-7`.

    Raises CanonicalError for NaN and infinities.
    """
    if not math.isfinite(value):
        raise CanonicalError("a number is not finite")
    if value == 0:
        return "-0.0" if math.copysign(1, value) < 0 else "0.0"
    sign = "-" if value < 0 else ""
    mantissa, _, exponent_text = f"{abs(value)!r}".partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    leading_zeros = len(whole + fraction) - len(digits)
    point = len(whole) + int(exponent_text or 0) - leading_zeros  # digits before the decimal point
    digits = digits.rstrip("0") or "0"
    if -4 <= point <= 16:
        if point <= 0:
            return f"{sign}0.{'0' * -point}{digits}"
        if len(digits) <= point:
            return f"{sign}{digits}{'0' * (point - len(digits))}.0"
        return f"{sign}{digits[:point]}.{digits[point:]}"
    rest = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{sign}{digits[0]}{rest}e{point - 1}"
