"""Describes a setting: its meaning, its bounds, and when a change takes effect."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

# Bounded by PostgreSQL's 32-bit integers: the limit of an account from all addresses is MAX_ACCOUNT_ADDRESSES times this.
MAX_COUNT = 1_000_000  # admissions in a window, guilds, channels, invites, streams, frames
MAX_WINDOW_SECS = 7 * 86_400  # attempts are kept for three windows
MAX_SECS = 3_600  # of a timeout or a delay
MIN_SECS = 0.01  # PostgreSQL rounds to milliseconds, and 0 means no limit; timers tick every 100 ms

Count = Annotated[int, Meta(gt=0, le=MAX_COUNT)]
Window = Annotated[int, Meta(gt=0, le=MAX_WINDOW_SECS)]  # seconds
Seconds = Annotated[float, Meta(ge=0, le=MAX_SECS)]
PositiveSeconds = Annotated[float, Meta(ge=MIN_SECS, le=MAX_SECS)]


@dataclass(frozen=True, slots=True)
class Setting:
    """Marks a field as a configuration key. Fields without it are not keys."""

    meaning: str  # one line
    live: bool = False  # a change takes effect without a restart
    settable: bool = True  # if live: also by `admin set`; otherwise only by SIGHUP


class Contradiction(ValueError):
    """Values that are valid alone but not together. `keys`: their keys, so that a message can say where they are set."""

    def __init__(self, text: str, *keys: str) -> None:
        super().__init__(text)
        self.keys = keys


class Contradictions(ValueError):
    """Several contradictions, found together."""

    def __init__(self, found: tuple[Contradiction, ...]) -> None:
        super().__init__("; ".join(map(str, found)))
        self.found = found
