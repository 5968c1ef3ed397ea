"""Attempts counted in memory, in sixtieths of their window as PostgreSQL does."""

from __future__ import annotations

from itertools import islice

from openguild_proto.effects import CountAttempt
from openguild_proto.effects.performs import performs
from openguild_runtime.storage.memory.state import State

BINS = 60
FORGOTTEN_AT_ONCE = 20


@performs(CountAttempt)
def count_attempt(state: State, effect: CountAttempt) -> float | None:
    window_ms = effect.window_secs * 1000
    width_ms = window_ms // BINS
    start = effect.now_ms - window_ms - width_ms
    waits = []
    for key in effect.keys:
        bins = state.attempts[key.digest] = state.attempts.pop(key.digest, {})  # the least recently asked stands first
        for old in [at for at in bins if at <= start]:
            del bins[old]
        if sum(bins.values()) >= key.limit:
            waits.append((min(bins) - start) / 1000)
    if not waits:
        now_bin = effect.now_ms - effect.now_ms % width_ms
        for key in effect.keys:
            bins = state.attempts[key.digest]
            bins[now_bin] = bins.get(now_bin, 0) + 1
    for digest in list(islice(state.attempts, FORGOTTEN_AT_ONCE)):
        if max(state.attempts[digest], default=0) <= start:
            del state.attempts[digest]
    return max(waits, default=None)
