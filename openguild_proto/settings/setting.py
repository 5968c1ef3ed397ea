"""Describes a setting: its meaning, its bounds, and when a change applies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

# Bounded by PostgreSQL's 32-bit integers: the count of an account from all addresses is ten times its limit
# (MAX_ACCOUNT_ADDRESSES).
MAX_COUNT = 1_000_000  # of admissions in a window, guilds, channels, invites, streams, frames
MAX_WINDOW_SECS = 7 * 86_400  # attempts are kept for three windows
MAX_SECS = 3_600  # of a timeout or a delay
MIN_SECS = 0.01  # PostgreSQL rounds to milliseconds, and 0 means no limit; timers tick every 100 ms

Count = Annotated[int, Meta(gt=0, le=MAX_COUNT)]
Window = Annotated[int, Meta(gt=0, le=MAX_WINDOW_SECS)]  # seconds
Seconds = Annotated[float, Meta(ge=0, le=MAX_SECS)]
PositiveSeconds = Annotated[float, Meta(ge=MIN_SECS, le=MAX_SECS)]


@dataclass(frozen=True, slots=True)
class Setting:
    """Marks a field as a key of the configuration; other fields are not keys."""

    meaning: str  # one line
    live: bool = False  # a change applies without a restart
    settable: bool = True  # if live: by `admin set` too; otherwise only by SIGHUP


class Contradiction(ValueError):
    """Values that are valid alone but not together. `keys`: theirs, so that a message can say where they are set."""

    def __init__(self, text: str, *keys: str) -> None:
        super().__init__(text)
        self.keys = keys


class Contradictions(ValueError):
    """Several of them, found at once."""

    def __init__(self, found: tuple[Contradiction, ...]) -> None:
        super().__init__("; ".join(map(str, found)))
        self.found = found
