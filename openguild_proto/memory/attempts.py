"""Counts login attempts in memory, in bins of a sixtieth of the window as PostgreSQL does."""

from __future__ import annotations

from itertools import islice

from openguild_proto.effects.attempts import CountAttempt
from openguild_proto.effects.performs import performs
from openguild_proto.memory.state import State
from openguild_proto.policy.attempts import bin_of, decide_attempt, forgotten_until

FORGOTTEN_AT_ONCE = 20


@performs(CountAttempt)
def count_attempt(state: State, effect: CountAttempt) -> float | None:
    start = forgotten_until(effect.now_ms, effect.window_secs)
    counted = []
    for key in effect.keys:
        bins = state.attempts[key.digest] = state.attempts.pop(key.digest, {})  # the least recently used key is first
        for old in [at for at in bins if at <= start]:
            del bins[old]
        counted.append((bins, key.limit))
    wait_secs = decide_attempt(counted, now_ms=effect.now_ms, window_secs=effect.window_secs)
    if wait_secs is None:
        now_bin = bin_of(effect.now_ms, effect.window_secs)
        for key in effect.keys:
            bins = state.attempts[key.digest]
            bins[now_bin] = bins.get(now_bin, 0) + 1
    for digest in list(islice(state.attempts, FORGOTTEN_AT_ONCE)):
        if max(state.attempts[digest], default=0) <= start:
            del state.attempts[digest]
    return wait_secs
