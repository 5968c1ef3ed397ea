"""Invisible characters, and the places where a script or an emoji needs one.

Elsewhere they make different names look the same. The places are those of RFC 5892 appendix A (CONTEXTJ) and UAX 31 2.3 for
the joiners, of UTS 51 for emoji, and of the Ideographic Variation Database and Mongolian for variation selectors.
"""

from __future__ import annotations

import unicodedata

ZWNJ, ZWJ = "\u200c", "\u200d"
JOINERS = frozenset((ZWNJ, ZWJ))
_BRAILLE_BLANK = "\u2800"
_VIRAMA = 9  # canonical combining class
_SKIN_TONES = range(0x1F3FB, 0x1F400)
_TAGS = range(0xE0020, 0xE0080)
_TEXT_OR_EMOJI = frozenset("\ufe0e\ufe0f")
_KEYCAPS = frozenset("0123456789#*")
_KEYCAP = "\u20e3"  # forms a keycap after one of them

# Default_Ignorable_Code_Point (UAX 44) outside the category Cf, fillers, and characters that fonts draw as blank.
BLANK = frozenset(
    map(
        chr,
        (
            0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2065, 0x2800, 0x3164, 0xFFA0, 0x16FE4, 0x1D159,
            *range(0x180B, 0x1810), *range(0xFE00, 0xFE10), *range(0xFFF0, 0xFFF9), *range(0xE0000, 0xE1000),
        ),
    )
)  # fmt: skip

# Extended_Pictographic (UTS 51), by blocks without other characters that names use.
_PICTOGRAPHS = (
    range(0xA9, 0xAA), range(0xAE, 0xAF), range(0x203C, 0x203D), range(0x2049, 0x204A), range(0x2122, 0x2123),
    range(0x2139, 0x213A), range(0x2194, 0x21AB), range(0x231A, 0x2400), range(0x24C2, 0x24C3), range(0x25AA, 0x2600),
    range(0x2600, 0x27C0), range(0x2934, 0x2936), range(0x2B05, 0x2B56), range(0x3030, 0x3031), range(0x303D, 0x303E),
    range(0x3297, 0x329A), range(0x1F000, 0x1FB00),
)  # fmt: skip


def _letters_with(*forms: str) -> frozenset[str]:
    """Return the Arabic letters that have one of these presentation forms."""
    found = set()
    for code in (*range(0xFB50, 0xFE00), *range(0xFE70, 0xFF00)):
        form, *letters = unicodedata.decomposition(chr(code)).split() or [""]
        if form in forms and len(letters) == 1:
            found.add(chr(int(letters[0], 16)))
    return frozenset(found)


_JOINS_FOLLOWING = _letters_with("<initial>", "<medial>")  # Joining_Type D: join the letter after them
_JOINS_PRECEDING = _letters_with("<final>", "<medial>")  # D and R: join the letter before them
_FORMED = _letters_with("<initial>", "<medial>", "<final>", "<isolated>")


def is_needed(text: str, at: int) -> bool:
    """Return whether the joiner or blank character at `at` changes the rendering of the text."""
    character = text[at]
    before, after = text[:at], text[at + 1 : at + 2]
    if character in JOINERS:
        return _joiner_is_needed(character, before, text[at + 1 :])
    if character in _TEXT_OR_EMOJI:
        return _is_pictograph(before[-1:]) or (before[-1:] in _KEYCAPS and before != "" and after == _KEYCAP)
    if character == _BRAILLE_BLANK:  # a space, between cells
        return all("\u2800" <= neighbour <= "\u28ff" for neighbour in (before[-1:], after))
    name = unicodedata.name(before[-1:], "") if before else ""
    if character in "\ufe00\ufe01\ufe02" or ord(character) >= 0xE0100:
        return name.startswith("CJK ")
    return character in "\u180b\u180c\u180d\u180f" and name.startswith("MONGOLIAN LETTER")


def _joiner_is_needed(joiner: str, before: str, after: str) -> bool:
    follows = after[:1] or " "
    if unicodedata.combining(before[-1:] or " ") == _VIRAMA:  # UAX 31 A2 and B: after a letter of its script
        script = _script(before[-1])
        return _script(_letter(reversed(before))) == script and (joiner == ZWJ or _script(follows) == script)
    if joiner == ZWJ:
        # Bengali ya-phalaa after ra, Unicode 12.2; or an emoji sequence
        ya_phalaa = before[-1:] == "\u09b0" and follows == "\u09cd"
        return ya_phalaa or (_is_pictograph(_pictograph_of(before)) and _is_pictograph(follows))
    return _joins(_letter(reversed(before)), _JOINS_FOLLOWING) and _joins(_letter(after), _JOINS_PRECEDING)


def _script(character: str) -> str:
    """Return the first word of the character's Unicode name."""
    return unicodedata.name(character, "").split(" ")[0] if character else ""


def _pictograph_of(before: str) -> str:
    """Return the character that a presentation selector or tags at the end belong to."""
    end = len(before)
    while end and (before[end - 1] in _TEXT_OR_EMOJI or ord(before[end - 1]) in _TAGS):
        end -= 1
    return before[end - 1 : end]


def _is_pictograph(character: str) -> bool:
    return character != "" and any(ord(character) in block for block in _PICTOGRAPHS)


def _letter(characters: object) -> str:
    """Return the first character that is not a mark: skips Joining_Type T (RFC 5892 A.1)."""
    assert isinstance(characters, str | reversed)
    return next((one for one in characters if unicodedata.category(one) not in {"Mn", "Me"}), "")


def _joins(letter: str, joining: frozenset[str]) -> bool:
    """Return whether the letter joins: Arabic by its forms; any letter of Syriac, N'Ko, Mongolian and Mandaic."""
    if letter in _FORMED:
        return letter in joining
    name = unicodedata.name(letter, "") if letter else ""
    return name.startswith(("ARABIC LETTER", "SYRIAC LETTER", "NKO LETTER", "MONGOLIAN LETTER", "MANDAIC LETTER"))
