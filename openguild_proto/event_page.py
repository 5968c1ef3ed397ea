"""A page of a log, as a store reads it."""

from __future__ import annotations

import msgspec


class EventPage(msgspec.Struct):
    """Events as (sequence, wire), oldest first. Requests for the same page may share one, and so what is made of it."""

    events: tuple[tuple[int, bytes], ...] = ()
    body: bytes | None = None  # of the answer; the first of the requests sets it
