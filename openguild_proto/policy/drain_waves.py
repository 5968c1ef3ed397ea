"""Plans the waves in which a draining replica closes its sockets, to avoid a reconnect storm (PROTOCOL 12.1)."""

from __future__ import annotations

from typing import NamedTuple

from openguild_proto.limits import (
    MAX_GATEWAY_RECONNECTS_PER_SEC,
    MAX_RECONNECTS_PER_SEC,
    MAX_SPREAD_MS,
    MIN_SPREAD_MS,
    MIN_WAVE_SOCKETS,
    WAVE_SECS,
)


class DrainWaves(NamedTuple):
    """Close `size` sockets, wait `pause_secs`, repeat. Each client gets a random reconnect delay below `spread_ms`."""

    size: int
    pause_secs: float
    spread_ms: int


def plan_waves(sockets: int, window_secs: float) -> DrainWaves:
    """Plan the waves for `sockets`. The last wave is in the first half of the window; the rest is for close handshakes."""
    waves = max(1, int(window_secs / 2 / WAVE_SECS))
    size = max(MIN_WAVE_SOCKETS, -(-sockets // waves))
    spread_ms = min(MAX_SPREAD_MS, MIN_SPREAD_MS + 1_000 * sockets // MAX_RECONNECTS_PER_SEC)
    return DrainWaves(size, WAVE_SECS, spread_ms)


def plan_slots(sockets: int, window_secs: float) -> int:
    """Return the milliseconds over which the slots of gateway sockets are spread: at most two thirds of the window.

    The rest is for clients that do not leave in their slot. A socket is served until its slot, so a long spread has no cost.
    """
    return min(MIN_SPREAD_MS + 1_000 * sockets // MAX_GATEWAY_RECONNECTS_PER_SEC, int(window_secs * 1_000 * 2 / 3))
