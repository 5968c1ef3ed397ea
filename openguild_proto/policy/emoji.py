"""Checks the emoji of a reaction (PROTOCOL 6.6.5): a short text without spaces or controls, in one form."""

from __future__ import annotations

import unicodedata
from functools import lru_cache

from openguild_proto.errors import ErrorCode, FieldProblem, Refusal
from openguild_proto.limits import MAX_EMOJI_CHARS, MAX_RAW_EMOJI_CHARS
from openguild_proto.policy.invisible_characters import BLANK, is_needed
from openguild_proto.policy.names import text_problem

_REFUSED = frozenset({"Cc", "Cs", "Co", "Zs", "Zl", "Zp"})
_MARKS = frozenset({"Mn", "Me", "Mc"})
_TAGS = "".join(map(chr, range(0xE0020, 0xE0080)))
_NEWER = range(0x1F000, 0x1FB00)  # pictographs of newer versions of Unicode than Python's


def checked_emoji(text: str) -> str:
    """Return the emoji in NFC, so that two spellings of one count together. Raises Refusal 400.

    A text that is too long for any emoji is refused first: normalisation takes quadratic time in the number of combining marks.
    """
    emoji = text.strip()
    if len(emoji) > MAX_RAW_EMOJI_CHARS:
        raise _too_long()
    return _checked(emoji)


def shown_emoji(text: str) -> str:
    """Return the emoji of an existing reaction that a request names, in NFC. Raises Refusal 400.

    Unlike `checked_emoji`, it accepts any text that another server or release may have accepted as an emoji.
    """
    emoji = text.strip()
    if len(emoji) > MAX_RAW_EMOJI_CHARS:
        raise _too_long()
    emoji = unicodedata.normalize("NFC", emoji)
    if not 1 <= len(emoji) <= MAX_EMOJI_CHARS:
        raise _too_long()
    problem = text_problem(emoji)
    if problem is not None:
        raise _problem(problem)
    return emoji


@lru_cache(maxsize=1_024)  # most reactions use few emoji; refusals are not cached
def _checked(text: str) -> str:
    emoji = unicodedata.normalize("NFC", text)
    if not 1 <= len(emoji) <= MAX_EMOJI_CHARS:
        raise _too_long()
    if unicodedata.category(emoji[0]) in _MARKS:
        raise _problem("must not begin with a combining mark")
    for at, character in enumerate(emoji):
        category = unicodedata.category(character)
        unknown = category == "Cn" and ord(character) not in _NEWER
        hidden = (category == "Cf" or character in BLANK) and not _belongs(emoji, at)
        if unknown or hidden or category in _REFUSED:
            raise _problem("must be an emoji, or a short name without spaces")
    return emoji


def _belongs(emoji: str, at: int) -> bool:
    """Return whether a format character is part of an emoji: a joiner between two emoji, or a tag of a flag."""
    if 0xE0020 <= ord(emoji[at]) <= 0xE007F:  # a flag's tags stand behind a black flag (UTS 51)
        return emoji[:at].rstrip(_TAGS).endswith("\N{WAVING BLACK FLAG}")
    return is_needed(emoji, at)


def _too_long() -> Refusal:
    return _problem(f"must be 1 to {MAX_EMOJI_CHARS} characters long")


def _problem(message: str) -> Refusal:
    return Refusal(ErrorCode.VALIDATION, details=(FieldProblem("emoji", message),))
