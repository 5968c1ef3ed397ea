"""Hints that a socket is given together."""

from __future__ import annotations

from openguild_proto.gateway.hint_frames import HintFrames


def test_nobody_is_told_of_themselves() -> None:
    hints = HintFrames({"alice": b"a", "bob": b"b", "carol": b"c"})
    assert hints.for_user("bob") == b"ac"
    assert hints.for_user("dave") == hints.for_user(None) == b"abc"
    assert HintFrames({"alice": b"a"}).for_user("alice") == b""
