"""What counts as the emoji of a reaction (PROTOCOL 6.6.5): a short text without spaces or controls, in one form."""

from __future__ import annotations

import unicodedata

from openguild_proto.errors import ErrorCode, FieldProblem, Refusal
from openguild_proto.limits import MAX_EMOJI_CHARS
from openguild_proto.policy.invisible_characters import is_needed

_REFUSED = frozenset({"Cc", "Cs", "Co", "Zs", "Zl", "Zp"})
_NEWER = range(0x1F000, 0x1FB00)  # pictographs of a newer Unicode than this Python's


def checked_emoji(text: str) -> str:
    """Return the emoji in NFC, so that two spellings of one count together. Raises Refusal 400."""
    emoji = unicodedata.normalize("NFC", text.strip())
    if not 1 <= len(emoji) <= MAX_EMOJI_CHARS:
        raise _problem(f"must be 1 to {MAX_EMOJI_CHARS} characters long")
    for at, character in enumerate(emoji):
        category = unicodedata.category(character)
        unknown = category == "Cn" and ord(character) not in _NEWER
        if unknown or category in _REFUSED or (category == "Cf" and not _belongs(emoji, at)):
            raise _problem("must be an emoji, or a short name without spaces")
    return emoji


def _belongs(emoji: str, at: int) -> bool:
    """A format character that an emoji is made with: a joiner between two, or the tags of a flag."""
    return is_needed(emoji, at) or 0xE0020 <= ord(emoji[at]) <= 0xE007F


def _problem(message: str) -> Refusal:
    return Refusal(ErrorCode.VALIDATION, details=(FieldProblem("emoji", message),))
