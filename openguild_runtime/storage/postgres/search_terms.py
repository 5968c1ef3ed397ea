"""Writes documents and queries for PostgreSQL's text search: terms of the core, and marks for the other criteria."""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache

from openguild_proto.policy.search import Has, Phrase, SearchConditions, has_link, terms_of
from openguild_runtime.storage.migrations.first.search import LEVELS

# Marks begin with a slash. Terms contain neither slashes nor quotes and backslashes, which would need escaping.
MARKS = {Has.LINK: "'/link'", Has.REPLY: "'/reply'", Has.MENTION: "'/mention'"}


def document_of(text: str, *, author_id: str, created_at_ms: int, posted: Collection[Has] = ()) -> str:
    """Return a message as a tsvector. `posted` are the kinds of content that it was posted with."""
    parts = [
        f"'{term}':{places[0]}" if len(places) == 1 else f"'{term}':{','.join(map(str, places))}"
        for term, places in terms_of(text).items()
    ]
    parts.append(_author(author_id))
    parts.append(_spans(created_at_ms >> LEVELS[0]))
    if has_link(text):
        parts.append(MARKS[Has.LINK])
    parts += [MARKS[has] for has in posted]
    return " ".join(parts)


def query_of(wanted: SearchConditions) -> str | None:
    """Return a search as a tsquery, or None if it has no criteria in documents. Pins, reactions and times are not in documents."""
    parts = [_phrase(phrase) for phrase in wanted.phrases]
    if wanted.author_id is not None:
        parts.append(_author(wanted.author_id))
    parts += [mark for has, mark in MARKS.items() if has in wanted.has]
    return " & ".join(parts) or None


def _phrase(phrase: Phrase) -> str:
    text, place = "", 0
    for part in phrase:
        text += f" <{part.offset - place}> " if text else ""
        text += f"'{part.term}'" + (":*" if part.is_beginning else "")
        place = part.offset
    return f"({text})"


@lru_cache(maxsize=256)
def _spans(shortest: int) -> str:
    """Return the marks of the spans of time, one for each level, that contain the given span of the shortest level."""
    return " ".join(f"'/{level}:{shortest >> level - LEVELS[0]}'" for level in LEVELS)


def _author(author_id: str) -> str:
    term = f"/from:{author_id}"
    return "'" + term.replace("\\", "\\\\").replace("'", "''") + "'"
