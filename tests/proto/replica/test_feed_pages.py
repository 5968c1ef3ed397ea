"""Pages for the gateway: read once for all who ask, and nothing that was redacted meanwhile."""

from __future__ import annotations

from openguild_proto.effects.channels import ReadEvents
from openguild_proto.fanout.hub import Hub
from openguild_proto.gateway.encoding import Encoding
from openguild_proto.gateway.feeds import Feed, Feeds
from openguild_proto.limits import PAGE_RETRY_SECS
from openguild_proto.records import StoredEvent
from openguild_proto.replica.feed_pages import FeedPages
from openguild_proto.replica.outputs import Outputs
from tests.proto.replica.test_gateway import Scene, scene

__all__ = ["scene"]

LOG_ID = "00000000-0000-4000-8000-000000000001"


class Asking:
    """A socket that asks; `pages`: what it was given."""

    def __init__(self) -> None:
        self.server = self
        self.pages: list[bytes] = []

    def page(self, feed: Feed, after: int, pieces: list[bytes], now: float) -> None:
        self.pages.append(b"".join(pieces))

    def wake(self) -> None:
        pass


def test_a_page_that_was_read_before_a_redaction_is_given_to_nobody() -> None:
    outputs = Outputs(Hub())
    pages = FeedPages(outputs)
    feed = Feeds(Hub()).open(f"channel:{LOG_ID}", 1, 0, Encoding.JSON)

    def read() -> int:
        query = outputs.procedures.take_query()
        assert query is not None
        assert isinstance(query[1], ReadEvents)
        return query[0]

    def stored(text: bytes) -> tuple[StoredEvent, ...]:
        return (StoredEvent(LOG_ID, 1, "$x", b'{"content":"%b"}' % text, 0),)

    first, second, late = Asking(), Asking(), Asking()
    pages.ask(first, feed, 0, 10)
    before = read()
    pages.drop(feed)  # the redaction is heard
    assert first.pages == [b""], "it asks again"
    pages.ask(second, feed, 0, 10)
    after = read()
    outputs.procedures.answered(before, stored(b"secret"))
    assert second.pages == []
    outputs.procedures.answered(after, stored(b""))
    pages.ask(late, feed, 0, 10)
    assert len(second.pages) == len(late.pages) == 1
    assert second.pages == late.pages
    assert b"secret" not in second.pages[0]
    assert pages.reading == 0


def test_a_page_that_a_defect_has_cost_is_asked_for_again(scene: Scene) -> None:
    for _ in range(3):
        scene.driven.elsewhere.append(scene.channel)
    client = scene.client()
    held = scene.driven.hold(ReadEvents)
    client.follow(scene.logs[0], after=0, epoch=1)
    held.fail(ValueError("what the store makes of it"))
    scene.driven.let_pass(ReadEvents)
    client.attend()
    scene.driven.sleep(PAGE_RETRY_SECS)
    client.server.handle_deadline(scene.driven.now)
    client.attend()
    assert client.events(scene.logs[0]) == [1, 2, 3]
    assert len(scene.driven.defects) == 1
