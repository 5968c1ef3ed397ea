"""The small parts: deadlines, outbox, frames, timestamps."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from openguild_proto.connection.deadlines import Deadline
from openguild_proto.connection.outbox import MAX_PIECES, Outbox
from openguild_proto.deadlines import Deadlines
from openguild_proto.errors import LocalProtocolError
from openguild_proto.timestamps import from_micros, from_millis
from openguild_proto.ws.frames import binary_frame, close_frame, ping_frame, text_frame


def test_deadlines_come_in_order_and_once() -> None:
    deadlines = Deadlines()
    assert deadlines.next() is None
    deadlines.set(Deadline.PING, 5.0)
    deadlines.set(Deadline.HEAD, 3.0)
    deadlines.set(Deadline.IDLE, 9.0)
    assert deadlines.next() == 3.0
    assert deadlines.take_expired(2.9) is None
    assert [deadlines.take_expired(5.0) for _ in range(3)] == [Deadline.HEAD, Deadline.PING, None]
    deadlines.set(Deadline.WRITE, 7.0)
    deadlines.stop_all_but((Deadline.WRITE,))
    assert deadlines.next() == deadlines[Deadline.WRITE] == 7.0
    deadlines.stop(Deadline.IDLE)
    deadlines.stop(Deadline.WRITE)
    assert deadlines.next() is None


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), float("-inf"), "5", None])
def test_what_is_no_time_is_refused_and_changes_nothing(wrong: Any) -> None:
    deadlines = Deadlines()
    deadlines.set(Deadline.PING, 5.0)
    with pytest.raises(LocalProtocolError, match="finite number"):
        deadlines.set(Deadline.PING, wrong)
    with pytest.raises(LocalProtocolError, match="finite number"):
        deadlines.take_expired(wrong)
    assert deadlines == {Deadline.PING: 5.0}


@given(st.lists(st.binary(max_size=20), max_size=10), st.lists(st.integers(1, 30), max_size=40))
def test_the_outbox_gives_what_was_appended(parts: list[bytes], takes: list[int]) -> None:
    outbox = Outbox(10_000)
    for part in parts:
        outbox.append(part)
    sent = bytearray()
    for size in takes:
        first, several = bytes(outbox.peek(size)), outbox.parts(size)
        piece = b"".join(several)
        assert len(several) <= MAX_PIECES
        assert len(first) <= len(piece) <= size
        assert piece.startswith(first)
        assert bool(piece) == bool(first) == bool(outbox)
        sent += piece
        outbox.consume(len(piece))
    sent += b"".join(outbox.take())
    assert bytes(sent) == b"".join(parts)
    assert len(outbox) == 0


def test_the_outbox_tells_when_it_is_too_full() -> None:
    outbox = Outbox(10)
    outbox.append(b"x" * 10)
    assert not outbox.overflowed
    outbox.append(b"x")
    assert outbox.overflowed
    with pytest.raises(ValueError):
        outbox.consume(12)
    outbox.clear()
    assert not outbox


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536])
def test_frame_heads(size: int) -> None:
    """RFC 6455 5.2: the shortest form of the length."""
    frame = text_frame(b"x" * size)
    expected = {0: b"\x00", 125: b"\x7d", 126: b"\x7e\x00\x7e", 65_535: b"\x7e\xff\xff"}
    assert frame[1 : -size or None][:10] == expected.get(size, b"\x7f\x00\x00\x00\x00\x00\x01\x00\x00")
    assert frame[0] == 0x81
    assert binary_frame(b"")[0] == 0x82


def test_control_frames_are_short() -> None:
    with pytest.raises(LocalProtocolError):
        ping_frame(b"x" * 126)
    assert close_frame(None) == b"\x88\x00"


@pytest.mark.parametrize(
    ("micros", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1_760_304_866_123_456, "2025-10-12T21:34:26.123456Z"),
        (1_760_304_866_123_000, "2025-10-12T21:34:26.123Z"),
        (1_760_304_866_000_000, "2025-10-12T21:34:26Z"),
    ],
)
def test_timestamps_are_as_short_as_they_are_exact(micros: int, text: str) -> None:
    """PROTOCOL 1.2.2."""
    assert from_micros(micros) == text
    if micros % 1000 == 0:
        assert from_millis(micros // 1000) == text
