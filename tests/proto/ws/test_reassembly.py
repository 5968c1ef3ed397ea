"""Frames in pieces of any size: the same frames, and each byte copied about once."""

from __future__ import annotations

import tracemalloc

import hypothesis.strategies as st
from hypothesis import given

from openguild_proto.ws.reassembly import FrameCutter, WsRule
from tests.support.wire import cut, masked

MIB = 1024 * 1024
FRAMES = [
    masked(0x01, b"a"),
    masked(0x89, b"p" * 125),
    masked(0x80, b""),
    masked(0x82, b"b" * 300),
    masked(0x81, b"c" * 70_000),
]


@given(st.lists(st.sampled_from(FRAMES[1:2] + FRAMES[3:]), max_size=5), st.lists(st.integers(0, 200_000), max_size=8))
def test_any_cut_gives_the_same_frames(frames: list[bytes], places: list[int]) -> None:
    cutter = FrameCutter(MIB, 8)
    found: list[bytes | WsRule] = []
    for piece in cut(b"".join([*FRAMES, *frames]), places):
        cutter.feed(piece)
        while (frame := cutter.next_frame()) is not None:
            found.append(frame)
    assert found == [*FRAMES, *frames]
    assert not cutter.in_frame


def test_one_byte_more_of_a_long_frame_copies_nothing_else() -> None:
    """Otherwise a few hundred bytes a second, each in a packet of its own, would take all the time of a process."""
    cutter = FrameCutter(16 * MIB, 8)
    frame = masked(0x82, b"")[:1] + b"\xff" + (8 * MIB).to_bytes(8, "big") + bytes(4) + bytes(8 * MIB)
    cutter.feed(frame[:-20])
    assert cutter.next_frame() is None
    cutter.feed(frame[-20:-19])  # from here on there is room for more
    tracemalloc.start()
    try:
        for place in range(len(frame) - 19, len(frame) - 1):
            cutter.feed(frame[place : place + 1])
            assert cutter.next_frame() is None
            assert cutter.in_frame
        assert tracemalloc.get_traced_memory()[1] < MIB
    finally:
        tracemalloc.stop()
    cutter.feed(frame[-1:])
    assert cutter.next_frame() == frame
    assert not cutter.in_frame
