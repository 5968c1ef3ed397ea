"""What is known of a setting beside its type and default: its meaning, its bounds, and when a change of it applies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

# What code and database hold, and more than anybody needs. `attempts` and `max_uses` are integers of 32 bits in PostgreSQL,
# where the count of an account at all addresses together is ten times its limit (MAX_ACCOUNT_ADDRESSES).
MAX_COUNT = 1_000_000  # of admissions in a window, guilds, channels, invites, streams, frames
MAX_WINDOW_SECS = 7 * 86_400  # attempts are kept for three of them
MAX_SECS = 3_600  # of a timeout or a delay
MIN_SECS = 0.01  # PostgreSQL counts milliseconds, and 0 of them mean no limit; a timer has ticks of 100

Count = Annotated[int, Meta(gt=0, le=MAX_COUNT)]
Window = Annotated[int, Meta(gt=0, le=MAX_WINDOW_SECS)]  # seconds
Seconds = Annotated[float, Meta(ge=0, le=MAX_SECS)]
PositiveSeconds = Annotated[float, Meta(ge=MIN_SECS, le=MAX_SECS)]


@dataclass(frozen=True, slots=True)
class Setting:
    """Marks a field as a key of the configuration; a field without it is no key."""

    meaning: str  # one line
    live: bool = False  # a change applies while it serves
    settable: bool = True  # where live: alone, by `admin set`; else only together with the others, at SIGHUP
    by_start: bool = False  # a start may put a value of its own in the place of what was read


class Contradiction(ValueError):
    """Values that are good alone and not together. `keys`: which, so that a message can say where they are set."""

    def __init__(self, text: str, *keys: str) -> None:
        super().__init__(text)
        self.keys = keys
