"""The flush of a feed: whoever is behind is served in turn, and is not forgotten."""

from __future__ import annotations

from openguild_proto.fanout.hub import Hub
from openguild_proto.gateway.encoding import Encoding
from openguild_proto.gateway.feeds import Feed, Feeds
from openguild_proto.gateway.hint_frames import HintFrames


class Reader:
    """A socket that takes everything."""

    def __init__(self, feeds: Feeds, handle: int) -> None:
        self.handle = handle
        self.taken = b""
        feeds.join(handle, self)

    def parked(self, feed: Feed) -> None:
        raise AssertionError("it takes everything")

    dropped_by_ring = parked

    def offer(self, hints: HintFrames) -> None:
        raise AssertionError("nothing is offered")


def test_a_reader_with_more_than_one_send_is_still_behind() -> None:
    feeds = Feeds(Hub())
    feed = feeds.open("channel:c", 1, 0, Encoding.JSON)
    readers = [Reader(feeds, handle) for handle in range(3)]
    for reader in readers:
        feed.attach(0, reader.handle)
    for sequence in range(1, 6):
        feeds.publish("channel:c", sequence, b'{"text":"%b"}' % (b"x" * 400))

    def send(handle: int, messages: bytes) -> int:
        readers[handle].taken += messages
        return len(messages)

    calls = 0
    while True:
        served, left, rests = feeds.flush(feed.key, 8, 1_000, send)
        calls += 1
        assert rests == []
        if not left:
            break
        assert served == 3
    assert calls > 1
    assert {reader.taken.count(b'"type":"ev"') for reader in readers} == {5}
    assert feeds.flush(feed.key, 8, 1_000, send) == (0, False, [])
    assert feeds.flush("no such ring", 8, 1_000, send) == (0, False, [])
