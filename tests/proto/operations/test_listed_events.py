"""The body of a page, which is put together from stored bytes."""

from __future__ import annotations

import msgspec

from openguild_proto.operations.logs import listed_events
from openguild_proto.schemas.messages import ListedEvent


def test_a_page_is_the_encoding_of_its_struct() -> None:
    channel = "9b0c5f0e-0f2d-4a3a-8f2e-3a1f6b1c2d3e"
    page = [(1, b'{"a":1}'), (2**53, '{"b":"\u00e9%s"}'.encode())]
    lines = [ListedEvent(sequence, channel, msgspec.Raw(wire)) for sequence, wire in page]
    assert listed_events(channel, page) == msgspec.json.encode(lines)
    assert listed_events(channel, []) == b"[]"
