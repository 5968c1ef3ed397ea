"""JSON text that msgspec does not parse, and what it parses in its place."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from openguild_proto.gateway.readable_json import without_depth, without_lone_surrogates

# one alphabet of both would have few of the first
PIECES = st.sampled_from('\\"[]{}u\ud83d\udc4d\ud800\udfff') | st.text(max_size=2)
TEXTS = st.lists(PIECES, max_size=6).map("".join)
VALUES = st.recursive(
    TEXTS | st.integers() | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


def replaced(value: Any) -> Any:
    match value:
        case str():
            return re.sub("[\ud800-\udfff]", "\ufffd", value)
        case list():
            return [replaced(item) for item in value]
        case dict():
            return {replaced(name): replaced(item) for name, item in value.items()}
    return value


@given(VALUES)
def test_only_lone_surrogates_are_replaced(value: Any) -> None:
    text = json.dumps(value)
    assert msgspec.json.decode(without_lone_surrogates(text.encode())) == replaced(json.loads(text))


@given(st.dictionaries(TEXTS, VALUES, max_size=4))
def test_only_the_outermost_object_is_left(members: dict[str, Any]) -> None:
    shallow = {name: None if isinstance(value, (list, dict)) else value for name, value in members.items()}
    expected = json.loads(json.dumps(shallow))  # two halves of a pair beside each other are one character in JSON
    assert json.loads(without_depth(json.dumps(members).encode())) == expected


@given(st.binary(), st.sampled_from([b"[", b"{", b"]", b"}", b'"', b"\\", b'{"a":[', b"\\ud800"]), st.binary())
def test_any_bytes_are_taken(before: bytes, token: bytes, behind: bytes) -> None:
    text = before + token + behind
    without_depth(text)
    if b"\\u" not in text:
        assert without_lone_surrogates(text) == text
