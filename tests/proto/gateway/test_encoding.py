"""What is said of a message that is no frame."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from openguild_proto.gateway.encoding import MAX_NESTED_BYTES, Encoding, MalformedFrame

DEPTH = 1_500  # which Python 3.11 does not read, and later ones do


def json_of(size: int) -> str:
    """A frame of `size` characters."""
    begin, end = '{"type":"hb","ref":5,"x":' + "[" * DEPTH + '"', '"' + "]" * DEPTH + "}"
    return begin + "x" * (size - len(begin) - len(end)) + end


def msgpack_of(size: int) -> bytes:
    """A frame of `size` bytes."""
    begin = b"\x83\xa4type\xa2hb\xa3ref\x05\xa1x" + b"\x91" * DEPTH
    text = size - len(begin) - 3
    return begin + b"\xda" + text.to_bytes(2) + b"x" * text


@pytest.mark.parametrize(("size", "ref"), [(MAX_NESTED_BYTES, 5), (MAX_NESTED_BYTES + 1, None)])
@pytest.mark.parametrize(("encoding", "frame_of"), [(Encoding.JSON, json_of), (Encoding.MSGPACK, msgpack_of)])
def test_a_ref_is_looked_for_in_what_is_nested_too_deep_unless_it_is_long(
    encoding: Encoding, frame_of: Callable[[int], str | bytes], size: int, ref: int | None
) -> None:
    frame = frame_of(size)
    assert len(frame) == size
    found: list[tuple[int | None, str]] = []
    try:
        encoding.decode_client(frame)
    except MalformedFrame as fault:
        found.append((fault.ref, fault.problem))
    assert found in ([], [(ref, "the frame is nested too deep")])
