"""Silence is that nothing is answered, not that one thing is."""

from __future__ import annotations

from openguild_proto.policy.silence_detector import SilenceDetector


def test_nothing_is_answered_within_the_timeout() -> None:
    silence = SilenceDetector(3.0)
    assert not silence.unanswered(10.0, 12.9)
    assert not silence.silent
    assert silence.unanswered(10.0, 13.0)
    assert silence.silent


def test_it_begins_once_and_ends_with_any_answer() -> None:
    silence = SilenceDetector(3.0)
    assert silence.unanswered(0.0, 3.0)
    assert not silence.unanswered(3.0, 6.0), "it has begun before"
    silence.response_received(7.0)
    assert not silence.silent
    assert silence.unanswered(8.0, 11.0), "and may begin again"


def test_what_is_answered_meanwhile_counts_from_its_time() -> None:
    silence = SilenceDetector(3.0)
    silence.response_received(11.0)
    assert not silence.unanswered(10.0, 13.5)
    assert silence.unanswered(10.0, 14.0)
