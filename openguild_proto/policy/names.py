"""Names and texts that people give to things (CONTRACT 6, A13, D-10)."""

from __future__ import annotations

import unicodedata

from openguild_proto.errors import ErrorCode, FieldProblem, Refusal
from openguild_proto.limits import MAX_NAME_CHARS


def text_problem(text: str) -> str | None:
    """Why a one-line text is refused: control characters, NUL among them, and lone surrogates."""
    for character in text:
        category = unicodedata.category(character)
        if category == "Cc":
            return "must not contain control characters"
        if category == "Cs":
            return "must be valid Unicode"
    return None


def check_name(text: str, kind: str) -> str:
    """The trimmed name of a guild or channel. `kind`: "guild_name" or "channel_name", the reason's prefix."""
    name = text.strip()
    if not name:
        raise _refusal("must be provided", f"{kind}_empty")
    if len(name) > MAX_NAME_CHARS:
        raise _refusal(f"must be at most {MAX_NAME_CHARS} characters long", f"{kind}_length")
    problem = text_problem(name)
    if problem is not None:
        raise _refusal(problem, "validation")
    return name


def _refusal(message: str, reason: str) -> Refusal:
    return Refusal(ErrorCode.VALIDATION, details=(FieldProblem("name", message),), reason=reason)
