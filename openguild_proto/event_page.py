"""A page of a log, as the store returns it."""

from __future__ import annotations

import msgspec


class EventPage(msgspec.Struct):
    """Events as (sequence, wire), oldest first. Requests for the same page may share one object and its rendered `body`."""

    events: tuple[tuple[int, bytes], ...] = ()
    body: bytes | None = None  # of the answer; set by the first request that renders it
