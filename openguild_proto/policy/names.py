"""Names and texts that people give to things (CONTRACT 6, A13, D-10)."""

from __future__ import annotations

import re
import unicodedata

from openguild_proto.errors import ErrorCode, FieldProblem, Refusal
from openguild_proto.limits import MAX_NAME_CHARS

# Default_Ignorable_Code_Point (UAX 44) outside the category Cf, and the blank Braille pattern: nothing is seen of them.
_BLANK = frozenset(
    map(
        chr,
        (
            0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0,
            *range(0x180B, 0x1810), *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0),
        ),
    )
)  # fmt: skip
_UNSEEN = frozenset({"Cf", "Cn", "Co", "Zl", "Zp"})
_JOINERS = frozenset("\u200c\u200d")  # in emoji and in several scripts
_FLAG = re.compile("\U0001f3f4[\U000e0030-\U000e0039\U000e0061-\U000e007a]{3,6}\U000e007f")  # UTS 51 ED-14a: a region's


def text_problem(text: str) -> str | None:
    """Why a one-line text is refused: control characters, NUL among them, and lone surrogates."""
    for character in text:
        category = unicodedata.category(character)
        if category == "Cc":
            return "must not contain control characters"
        if category == "Cs":
            return "must be valid Unicode"
    return None


def username_problem(text: str) -> str | None:
    """Why a username is refused: for the reasons of any text, and for invisible, private and unassigned characters."""
    problem = text_problem(text)
    if problem is not None:
        return problem
    if any(unicodedata.category(character) in _UNSEEN or character in _BLANK for character in text):
        return "must not contain invisible or unassigned characters"
    return None


def title_problem(text: str) -> str | None:
    """Why a guild's or channel's name is refused: as any text, for line breaks, for what turns text round; emoji may be in it."""
    problem = text_problem(text)
    if problem is not None:
        return problem
    for character in _FLAG.sub("", text):
        if unicodedata.category(character) in {"Cf", "Zl", "Zp"} and character not in _JOINERS:
            return "must not contain format characters"
    return None


def _is_blank(text: str) -> bool:
    return all(character.isspace() or character in _BLANK or character in _JOINERS for character in text)


def check_name(text: str, kind: str) -> str:
    """The trimmed name of a guild or channel. `kind`: "guild_name" or "channel_name", the reason's prefix."""
    name = text.strip()
    if len(name) > MAX_NAME_CHARS:
        raise _refusal(f"must be at most {MAX_NAME_CHARS} characters long", f"{kind}_length")
    if _is_blank(name):
        raise _refusal("must be provided", f"{kind}_empty")
    problem = title_problem(name)
    if problem is not None:
        raise _refusal(problem, "validation")
    return name


def _refusal(message: str, reason: str) -> Refusal:
    return Refusal(ErrorCode.VALIDATION, details=(FieldProblem("name", message),), reason=reason)
