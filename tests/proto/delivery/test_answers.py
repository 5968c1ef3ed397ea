"""What peers answer to deliveries that is none, or too much (PROTOCOL 16.8)."""

from __future__ import annotations

import pytest

from openguild_proto.effects.federation import AskPeer
from openguild_proto.limits import MAX_SHORT_ANSWER_BYTES
from openguild_proto.schemas.between_servers import MirrorPosition
from tests.support.mirrored_guild import World


@pytest.mark.parametrize(
    "body",
    [b"{", b'{"purged":["\xff"]}'],
    ids=["cut", "text"],
)
def test_answers_that_are_none_put_the_peer_off(body: bytes) -> None:
    world = World()
    world.peer.malformed = body
    world.post()
    (line,) = world.driven.lines
    assert line.fields["reason"] == "malformed_answer"
    world.peer.malformed = None
    world.driven.run(60)
    world.assert_level()


def test_a_deep_answer_is_no_defect_of_ours() -> None:
    """Whether it is too deep depends on the Python: 3.15 reads it."""
    world = World()
    world.peer.malformed = b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    world.post()
    assert [line.failure for line in world.driven.lines] in ([None], [])
    world.peer.malformed = None
    world.driven.run(60)
    world.assert_level()


def test_a_peer_cannot_answer_with_more_than_is_soon_read() -> None:
    world = World()
    asked: list[AskPeer] = []
    world.driven.fails = lambda effect: asked.append(effect) if isinstance(effect, AskPeer) else None
    world.post()
    assert [effect.max_bytes for effect in asked] == [MAX_SHORT_ANSWER_BYTES]


def test_a_delivery_that_overtakes_the_answer_to_a_join_is_made_again_soon() -> None:
    world = World()
    world.peer.answer = lambda part: MirrorPosition(part.log_id, "unknown")
    world.post()
    world.peer.answer = lambda part: None
    world.driven.run(1)
    world.assert_level()


def test_a_peer_that_never_knows_a_guild_is_asked_ever_more_seldom() -> None:
    world = World()
    world.peer.answer = lambda part: MirrorPosition(part.log_id, "unknown")
    world.post()
    world.driven.run(240)
    assert 8 <= len(world.peer.requests) <= 25


def test_a_mirror_that_is_said_to_stand_beyond_the_log_misses_nothing_later() -> None:
    """The database of the owner was restored, and a mirror has what was lost."""
    world = World()
    world.post(3)
    world.peer.answer = lambda part: MirrorPosition(part.log_id, "ok", part.epoch, part.after + len(part.events) + 5)
    world.post()
    world.peer.answer = lambda part: None
    world.peer.requests.clear()
    world.post()
    assert [len(part.events) for part in world.peer.requests[0].logs] == [1]
    world.assert_level()
