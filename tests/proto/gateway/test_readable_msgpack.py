"""MessagePack that msgspec does not parse, and what it parses in its place."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openguild_proto.gateway.readable_msgpack import without_depth

EXT_CODES = st.integers(-128, 127).filter(lambda code: code != -1)  # which stands for a time, and is decoded as one
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=40)
    | st.binary(max_size=40)
    | st.builds(msgspec.msgpack.Ext, EXT_CODES, st.binary(max_size=20))
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(max_size=3), inner, max_size=20),
    max_leaves=30,
)
LONG = [
    "x" * 300,
    "y" * 70_000,
    b"z" * 300,
    b"z" * 70_000,
    *(msgspec.msgpack.Ext(5, b"e" * size) for size in (3, 300, 70_000)),
]
WIDE = [
    list(range(300)),
    [0] * 70_000,
    dict.fromkeys(map(str, range(300)), 1),
    dict.fromkeys(map(str, range(70_000)), 1),
]
encode, decode = msgspec.msgpack.encode, msgspec.msgpack.decode


@given(st.dictionaries(st.text(max_size=4), VALUES, max_size=20))
def test_only_the_outermost_map_is_left(members: dict[str, Any]) -> None:
    expected = {name: None if isinstance(value, (list, dict)) and value else value for name, value in members.items()}
    assert decode(without_depth(encode(members))) == expected


@pytest.mark.parametrize("value", LONG, ids=range(len(LONG)))
def test_long_values_stay(value: object) -> None:
    assert decode(without_depth(encode({"x": value, "y": [value], "ref": 5}))) == {"x": value, "y": None, "ref": 5}


@pytest.mark.parametrize("value", WIDE, ids=range(len(WIDE)))
def test_wide_values_go(value: object) -> None:
    assert decode(without_depth(encode({"x": value, "ref": 5}))) == {"x": None, "ref": 5}


@given(st.binary())
def test_any_bytes_are_taken(data: bytes) -> None:
    without_depth(data)
    without_depth(b"\x8f" + data)


@pytest.mark.parametrize("depth", [1_000, 60_000])
def test_depth_is_no_matter(depth: int) -> None:
    data = b"\x82\xa1x" + b"\x91" * depth + b"\x01\xa3ref\x05"
    assert decode(without_depth(data)) == {"x": None, "ref": 5}


@pytest.mark.parametrize(
    "data", [b"\xc1", b"\x81\xa1x\x91", b"\x81\xa1x\x91\xc1", b"\xdf\x00", b"\x81\xa1x\xdd\xff\xff\xff\xff\x01"]
)
def test_what_is_no_messagepack_stays_none(data: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode(without_depth(data))
