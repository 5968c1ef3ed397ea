"""Validates names and other one-line texts (PROTOCOL 1.3). The lengths are in limits.py."""

from __future__ import annotations

import re
import unicodedata

from openguild_proto.errors import ErrorCode, FieldProblem, Refusal
from openguild_proto.limits import MAX_MARKS, MAX_NAME_CHARS, MAX_POSITION, MAX_TOPIC_CHARS
from openguild_proto.policy.invisible_characters import BLANK, JOINERS, is_needed

_UNSEEN = frozenset({"Cf", "Cn", "Co", "Zl", "Zp"})
_MARKS = frozenset({"Mn", "Me"})
# UTS 51 ED-14a: the flag of a region
_FLAG = re.compile("\U0001f3f4[\U000e0030-\U000e0039\U000e0061-\U000e007a]{3,6}\U000e007f")


def text_problem(text: str) -> str | None:
    """Return why a one-line text is refused (control characters, including NUL, or lone surrogates), or None."""
    for character in text:
        category = unicodedata.category(character)
        if category == "Cc":
            return "must not contain control characters"
        if category == "Cs":
            return "must be valid Unicode"
    return None


def username_problem(text: str) -> str | None:
    """Return why a username is refused, or None: as any text, or for invisible, private or unassigned characters."""
    problem = text_problem(text)
    if problem is not None:
        return problem
    if any(unicodedata.category(character) in _UNSEEN or character in BLANK for character in text):
        return "must not contain invisible or unassigned characters"
    if "  " in text:
        return "must not contain two spaces in a row"
    return marks_problem(text)


def title_problem(text: str) -> str | None:
    """Return why the name of a guild, channel or device is refused, or None.

    Refused are texts that `text_problem` refuses, line breaks, bidirectional controls, and invisible characters that no
    script or emoji needs.
    """
    problem = text_problem(text)
    if problem is not None:
        return problem
    plain = _FLAG.sub("\U0001f3f4", text)
    for character in plain:
        if unicodedata.category(character) in {"Cf", "Zl", "Zp"} and character not in JOINERS:
            return "must not contain format characters"
    for place, character in enumerate(plain):
        if (character in BLANK or character in JOINERS) and not is_needed(plain, place):
            return "must not contain invisible characters without effect"
    return marks_problem(plain)


def marks_problem(text: str) -> str | None:
    """Return why combining marks are refused, or None.

    A letter may have MAX_MARKS, and none directly after the same one (UTS 39 5.4). A mark needs a letter (RFC 5891 4.2.3.2).
    Vietnamese needs two, Thai, Arabic and Hebrew with vowels three, Tibetan four.
    """
    has_letter, count, former = False, 0, ""
    for character in unicodedata.normalize("NFD", text):
        category = unicodedata.category(character)
        if character in JOINERS:
            continue  # the next mark still belongs to the letter
        if not category.startswith("M"):
            has_letter, count = not character.isspace(), 0
        elif not has_letter:
            return "must not contain a combining mark without a letter"
        elif category in _MARKS:
            count += 1
            if count > MAX_MARKS or character == former:
                return f"must not contain more than {MAX_MARKS} combining marks on a letter, nor the same one twice in a row"
        former = character
    return None


def _is_blank(text: str) -> bool:
    return all(character.isspace() or character in BLANK or character in JOINERS for character in text)


def check_name(text: str, kind: str) -> str:
    """Return the trimmed name of a guild or channel. Raises Refusal.

    `kind`: "guild_name" or "channel_name", the prefix of the rejection reason.
    """
    name = text.strip()
    if len(name) > MAX_NAME_CHARS:
        raise _refusal(f"must be at most {MAX_NAME_CHARS} characters long", f"{kind}_length")
    if _is_blank(name):
        raise _refusal("must be provided", f"{kind}_empty")
    problem = title_problem(name)
    if problem is not None:
        raise _refusal(problem, "validation")
    return name


def check_display_name(text: str) -> str | None:
    """Return the trimmed display name, or None for an empty one. Raises Refusal."""
    name = text.strip()
    problem = _shown_problem(name, MAX_NAME_CHARS)
    if name and _is_blank(name):
        problem = "must not be invisible"
    if problem is not None:
        raise Refusal(ErrorCode.VALIDATION, details=(FieldProblem("display_name", problem),))
    return name or None


def check_place(topic: str, position: int) -> None:
    """Check a channel's topic and position. Raises Refusal with every problem."""
    problems = []
    problem = _shown_problem(topic.strip(), MAX_TOPIC_CHARS)
    if problem is not None:
        problems.append(FieldProblem("topic", problem))
    if not 0 <= position <= MAX_POSITION:
        problems.append(FieldProblem("position", f"must be between 0 and {MAX_POSITION}"))
    if problems:
        raise Refusal(ErrorCode.VALIDATION, details=tuple(problems))


def _shown_problem(text: str, max_chars: int) -> str | None:
    """Return why a text that may be empty is refused, or None. Checks the length first: other checks take quadratic time."""
    return f"must be at most {max_chars} characters long" if len(text) > max_chars else title_problem(text)


def _refusal(message: str, reason: str) -> Refusal:
    return Refusal(ErrorCode.VALIDATION, details=(FieldProblem("name", message),), reason=reason)
