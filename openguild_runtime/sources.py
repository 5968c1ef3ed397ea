"""Where time and randomness come from: the one place of the runtime that a simulation replaces."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sources:
    """`monotonic`: seconds, for deadlines. `wall`: UTC seconds, for stamps and expiries. `random_bytes(n)`: unguessable."""

    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    random_bytes: Callable[[int], bytes] = secrets.token_bytes
