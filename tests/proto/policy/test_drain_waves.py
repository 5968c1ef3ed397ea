"""Waves of closes leave room for their handshakes, and clients come back no faster than the others can take them."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from openguild_proto.limits import (
    MAX_GATEWAY_RECONNECTS_PER_SEC,
    MAX_RECONNECTS_PER_SEC,
    MAX_SPREAD_MS,
    MIN_WAVE_SOCKETS,
)
from openguild_proto.policy.drain_waves import plan_slots, plan_waves

SOCKETS = st.integers(0, 1_000_000)
WINDOWS = st.floats(0, 3_600)


@given(SOCKETS, WINDOWS)
@example(100_000, 0.0)
@example(100_000, 30.0)
def test_the_last_wave_leaves_in_the_first_half_of_the_window(sockets: int, window_secs: float) -> None:
    size, pause_secs, _ = plan_waves(sockets, window_secs)
    pauses = max(0, len(range(0, sockets, size)) - 1)
    assert pauses * pause_secs <= window_secs / 2


@given(SOCKETS, WINDOWS)
def test_returns_are_spread_by_how_many_there_are(sockets: int, window_secs: float) -> None:
    size, _, spread_ms = plan_waves(sockets, window_secs)
    assert size >= MIN_WAVE_SOCKETS
    assert 0 < spread_ms <= MAX_SPREAD_MS
    assert spread_ms == MAX_SPREAD_MS or sockets / spread_ms * 1_000 <= MAX_RECONNECTS_PER_SEC


@given(SOCKETS, SOCKETS, WINDOWS)
def test_more_sockets_never_mean_smaller_waves_or_a_shorter_spread(one: int, other: int, window_secs: float) -> None:
    fewer, more = (plan_waves(sockets, window_secs) for sockets in sorted((one, other)))
    assert fewer.size <= more.size
    assert fewer.spread_ms <= more.spread_ms


@given(SOCKETS, WINDOWS)
@example(5_000, 30.0)
def test_slots_are_spread_by_how_many_there_are_within_two_thirds_of_the_window(
    sockets: int, window_secs: float
) -> None:
    spread_ms, longest_ms = plan_slots(sockets, window_secs), int(window_secs * 1_000 * 2 / 3)
    assert 0 <= spread_ms <= longest_ms
    assert spread_ms == longest_ms or sockets / spread_ms * 1_000 <= MAX_GATEWAY_RECONNECTS_PER_SEC
