"""The rules of search: the terms of a text and of a query, the same for every store (PROTOCOL 7.11).

A store either compares with `matches`, or keeps the `terms_of` each message in an index with the same results.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping, Sequence
from enum import Enum
from typing import NamedTuple, TypeAlias

from openguild_proto.limits import (
    MAX_COMPARED_CHARS,
    MAX_EXCERPT_CHARS,
    MAX_KNOWN_CHARACTERS,
    MAX_MARKS_IN_A_ROW,
    MAX_MESSAGE_CHARS,
    MAX_TERM_CHARS,
    MAX_TERM_PLACES,
    MAX_TEXT_PLACES,
    MIN_BEGINNING_CHARS,
)
from openguild_proto.policy.invisible_characters import BLANK
from openguild_proto.records import NO_REACTIONS, MessageState

Terms: TypeAlias = Mapping[str, Sequence[int]]
"""The terms of a text with their positions, counted from 1."""


class Has(Enum):
    """The properties that a search may require."""

    LINK = "link"  # a web address in its text
    REPLY = "reply"  # it replies to another message
    MENTION = "mention"  # it mentions somebody
    PIN = "pin"  # it is pinned
    REACTION = "reaction"  # it has at least one


class Part(NamedTuple):
    """A term of a query. `offset`: its position relative to the first part. `is_beginning`: it also matches longer terms."""

    term: str
    offset: int = 0
    is_beginning: bool = False


Phrase: TypeAlias = tuple[Part, ...]
"""Parts that occur together in a text, each at its offset."""

_ASCII_WORD = re.compile(r"[0-9a-z_]+")
_LINK = re.compile(r"https?://[^\s/]", re.IGNORECASE)
_QUOTES = re.compile('["\u201c\u201d\u201e]')

# Marks that Arabic and Hebrew usually omit, and the Arabic letter that only stretches a word.
_UNWRITTEN = re.compile(
    "[\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u0640\u064b-\u065f\u0670\u06d6-\u06dc]"
)

# Scripts without spaces between words, and Hangul, whose words have endings: their terms are pairs of characters.
_SCRIPTS = (
    range(0x0E00, 0x0F00), range(0x1000, 0x10A0), range(0x1100, 0x1200), range(0x1780, 0x1800), range(0x3005, 0x3008),
    range(0x3040, 0x3190), range(0x31A0, 0x31C0), range(0x31F0, 0x3200), range(0x3400, 0x4DC0), range(0x4E00, 0xA000),
    range(0xA960, 0xA980), range(0xAC00, 0xD800), range(0xF900, 0xFB00), range(0x1B000, 0x1B170), range(0x20000, 0x33480),
)  # fmt: skip
_SKIN_TONES = range(0x1F3FB, 0x1F400)  # of emoji


WORD, UNSPACED, SYMBOL, MARK, NONE = "w", "u", "s", "m", " "
_PIECE = re.compile("w+|u+|s")
_LONG_RUN = re.compile(f"{MARK}{{{MAX_MARKS_IN_A_ROW}}}")
_PART_CHARS = 256  # of a line, normalised at a time to find the excerpt
_JOINER = "\u034f"  # the combining grapheme joiner, which is among BLANK


class _Kinds(dict[int, str]):
    """The kind of each character, for `str.translate`. Computed at its first use."""

    def __missing__(self, code: int) -> str:
        category = unicodedata.category(chr(code))
        kind = NONE
        if category[0] in "LNM" or category == "Pc":
            kind = UNSPACED if any(code in block for block in _SCRIPTS) else WORD
        elif category == "So" or code in _SKIN_TONES:
            kind = SYMBOL
        if len(self) < MAX_KNOWN_CHARACTERS:
            self[code] = kind
        return kind


class _Compared(dict[int, "int | None"]):
    """Each character, or None if it is not compared, for `str.translate`. Computed at its first use."""

    def __missing__(self, code: int) -> int | None:
        character = chr(code)
        is_dropped = (
            character in BLANK or unicodedata.category(character) == "Cf" or _UNWRITTEN.match(character) is not None
        )
        compared = None if is_dropped else code
        if len(self) < MAX_KNOWN_CHARACTERS:
            self[code] = compared
        return compared


class _Marks(dict[int, str]):
    """MARK for each character whose decomposition begins with a mark, for `str.translate`. Computed at its first use."""

    def __missing__(self, code: int) -> str:
        kind = MARK if unicodedata.combining(unicodedata.normalize("NFKD", chr(code))[0]) else NONE
        if len(self) < MAX_KNOWN_CHARACTERS:
            self[code] = kind
        return kind


_kinds, _compared, _marks = _Kinds(), _Compared(), _Marks()


def normalise(text: str) -> str:
    """Return the text as it is compared: NFKC, case-folded, without invisible characters and omitted marks.

    A text that becomes longer than MAX_COMPARED_CHARS is truncated (PROTOCOL 7.11.12).
    """
    if text.isascii():
        return text.lower()
    composed = unicodedata.normalize("NFKC", _stream_safe(text))[:MAX_COMPARED_CHARS]
    folded = unicodedata.normalize("NFKC", composed.casefold()[:MAX_COMPARED_CHARS])
    return folded[:MAX_COMPARED_CHARS].translate(_compared)


def _stream_safe(text: str) -> str:
    """Split long runs of marks (UAX 15 13) with an ignored character, because sorting a run takes quadratic time."""
    if len(text) <= MAX_MARKS_IN_A_ROW:
        return text
    begin = 0
    parts: list[str] = []
    for run in _LONG_RUN.finditer(text.translate(_marks)):
        parts += (text[begin : run.end()], _JOINER)
        begin = run.end()
    return "".join((*parts, text[begin:])) if parts else text


def _pieces(text: str) -> Iterator[tuple[str, bool]]:
    """Yield words, symbols and runs of unspaced characters of a normalised text. True: it is such a run."""
    if text.isascii():
        for word in _ASCII_WORD.findall(text):
            yield word, False
        return
    kinds = text.translate(_kinds)
    for piece in _PIECE.finditer(kinds):
        start, end = piece.span()
        yield text[start:end], kinds[start] == UNSPACED


def terms_of(text: str) -> dict[str, list[int]]:
    """Return the terms of a message's text: words, symbols, and of unspaced scripts each pair and the last character."""
    terms: dict[str, list[int]] = {}
    place = 1
    for piece, unspaced in _pieces(normalise(text)):
        if place > MAX_TEXT_PLACES:
            break
        if unspaced:
            for at in range(min(len(piece), MAX_TEXT_PLACES + 1 - place)):
                places = terms.setdefault(piece[at : at + 2], [])
                if len(places) < MAX_TERM_PLACES:
                    places.append(place + at)
            place += len(piece)
        else:
            places = terms.setdefault(piece[:MAX_TERM_CHARS], [])
            if len(places) < MAX_TERM_PLACES:
                places.append(place)
            place += 1
    return terms


def has_link(text: str) -> bool:
    """Return whether the text contains a web address."""
    return "://" in text and _LINK.search(text) is not None


class SearchConditions(NamedTuple):
    """The conditions of a search. A message must meet all that are set. Times are UTC milliseconds.

    `places`: ids of channels and guilds. If empty, the channels of the searcher's guilds and those in which they have a role.
    """

    phrases: tuple[Phrase, ...] = ()
    author_id: str | None = None
    places: tuple[str, ...] = ()
    since_ms: int | None = None  # inclusive
    until_ms: int | None = None  # exclusive
    has: frozenset[Has] = frozenset()


def is_found(wanted: SearchConditions, message: MessageState, text: str, posted: Collection[Has]) -> bool:
    """Return whether a message matches, apart from its channel. `text`: the newest. `posted`: the properties it was posted with."""
    if message.redacted_by is not None:
        return False
    if wanted.author_id is not None and wanted.author_id != message.author_id:
        return False
    if wanted.since_ms is not None and message.created_at_ms < wanted.since_ms:
        return False
    if wanted.until_ms is not None and message.created_at_ms >= wanted.until_ms:
        return False
    having = {
        Has.LINK: lambda: has_link(text),
        Has.REPLY: lambda: Has.REPLY in posted,
        Has.MENTION: lambda: Has.MENTION in posted,
        Has.PIN: lambda: message.pinned_at_ms is not None,
        Has.REACTION: lambda: message.reactions != NO_REACTIONS,
    }
    return all(having[what]() for what in wanted.has) and (
        not wanted.phrases or matches(terms_of(text), wanted.phrases)
    )


# --- queries -------------------------------------------------------------------------------------


def parse_phrases(query: str) -> tuple[Phrase, ...]:
    """Return the phrases that a text must contain. Quoted words belong together, and so do pieces without a space between them.

    The last word, if not quoted, also matches longer words that begin with it.
    """
    phrases: dict[Phrase, None] = {}
    sections = _QUOTES.split(normalise(query))  # every second one is quoted
    for number, section in enumerate(sections):
        if number % 2:
            phrases[_phrase(section)] = None
            continue
        words = section.split()
        is_open = number == len(sections) - 1 and section[-1:].strip() != ""
        for word in words[:-1]:
            phrases[_phrase(word)] = None
        for word in words[-1:]:
            phrases[_phrase(word, is_open=is_open)] = None
    phrases.pop((), None)
    return tuple(phrases)


def _phrase(text: str, *, is_open: bool = False) -> Phrase:
    """Return a phrase. `is_open`: its last word also matches longer words."""
    parts: list[Part] = []
    place = 0
    for piece, unspaced in _pieces(text):
        if unspaced:
            pairs = [Part(piece[at : at + 2], place + at) for at in range(len(piece) - 1)]
            parts += pairs or [Part(piece, place, is_beginning=True)]  # one character: every pair that begins with it
            place += len(piece)
        else:
            parts.append(Part(piece[:MAX_TERM_CHARS], place))
            place += 1
    if is_open and parts and len(parts[-1].term) >= MIN_BEGINNING_CHARS and text.endswith(parts[-1].term):
        parts[-1] = parts[-1]._replace(is_beginning=True)
    return tuple(parts)


def matches(terms: Terms, phrases: Sequence[Phrase]) -> bool:
    """Return whether a text with these terms contains all of the phrases."""
    ordered: list[str] = []
    for phrase in phrases:
        starts: set[int] | None = None
        for part in phrase:
            if part.is_beginning:
                ordered = ordered or sorted(terms)
                found = {place for term in _beginning(ordered, part.term) for place in terms[term]}
            else:
                found = set(terms.get(part.term, ()))
            here = {place - part.offset for place in found}
            starts = here if starts is None else starts & here
            if not starts:
                return False
    return True


def _beginning(ordered: Sequence[str], prefix: str) -> Iterator[str]:
    for at in range(bisect_left(ordered, prefix), len(ordered)):
        if not ordered[at].startswith(prefix):
            return
        yield ordered[at]


def excerpt(text: str, phrases: Sequence[Phrase]) -> str:
    """Return the part of the text around the first match, in one line. A short text is returned whole."""
    line = " ".join(text.split())
    if len(line) <= MAX_EXCERPT_CHARS:
        return line
    first = _find_place(line, [phrase[0].term for phrase in phrases])
    start = min(max(0, first - MAX_EXCERPT_CHARS // 4), len(line) - MAX_EXCERPT_CHARS)
    return line[start : start + MAX_EXCERPT_CHARS]


def _find_place(line: str, terms: Sequence[str]) -> int:
    """Return the approximate position of the first term, or 0 if there is none or it is too expensive to find.

    Most terms are found without normalising. Otherwise the line is normalised in parts, up to MAX_MESSAGE_CHARS.
    """
    if not terms:
        return 0
    folded = line.casefold()
    places = [at for term in terms if (at := folded.find(term)) >= 0]
    if places:
        return min(places) * len(line) // len(folded)  # lengths may differ, but an approximate position is enough
    compared = 0
    for begin in range(0, len(line), _PART_CHARS):
        if compared >= MAX_MESSAGE_CHARS:
            break
        part = normalise(line[begin : begin + _PART_CHARS + MAX_TERM_CHARS])
        places = [at for term in terms if (at := part.find(term)) >= 0]
        if places:
            return begin + min(places) * _PART_CHARS // len(part)
        compared += len(part)
    return 0
