"""Few enough signals of typing are told."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from openguild_proto.limits import MAX_TYPISTS_PER_CHANNEL, TYPING_SECS
from openguild_proto.replica.typing import TypingThrottle


def test_a_user_s_next_signal_passes_after_the_interval() -> None:
    throttle = TypingThrottle()
    assert throttle.admits("c", "alice", 10.0)
    assert not throttle.admits("c", "alice", 10.0 + TYPING_SECS - 0.01)
    assert throttle.admits("c", "alice", 10.0 + TYPING_SECS)


def test_channels_and_users_are_apart() -> None:
    throttle = TypingThrottle()
    assert all(throttle.admits(channel, user, 1.0) for channel in "cd" for user in ("alice", "bob"))


def test_a_channel_tells_of_so_many_users_at_a_time() -> None:
    throttle = TypingThrottle()
    admitted = [throttle.admits("c", f"user {number}", 1.0) for number in range(MAX_TYPISTS_PER_CHANNEL + 3)]
    assert admitted == [True] * MAX_TYPISTS_PER_CHANNEL + [False] * 3
    assert throttle.admits("d", "user 9", 1.0)
    assert throttle.admits("c", "late", 1.0 + TYPING_SECS)


@given(st.lists(st.tuples(st.sampled_from("cd"), st.sampled_from("abcdefghijkl"), st.floats(0, 1))))
def test_no_interval_has_more_than_a_channel_may_tell(signals: list[tuple[str, str, float]]) -> None:
    throttle, now = TypingThrottle(), 0.0
    told: list[tuple[str, str, float]] = []
    for channel, user, secs in signals:
        now += secs
        if throttle.admits(channel, user, now):
            told.append((channel, user, now))
    for channel, user, at in told:
        within = [other for other in told if other[0] == channel and at - TYPING_SECS < other[2] <= at]
        assert len(within) <= MAX_TYPISTS_PER_CHANNEL
        assert [other for other in within if other[1] == user] == [(channel, user, at)]
