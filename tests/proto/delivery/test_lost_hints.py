"""What another process stores reaches the peers also where no hint tells of it (PROTOCOL 16.8.8)."""

from __future__ import annotations

import pytest

from openguild_proto.limits import PEER_HEADS_SECS, TAIL_CHECK_SECS
from openguild_proto.schemas.between_servers import MirrorPosition
from tests.support.mirrored_guild import World


@pytest.mark.parametrize("peers", [1, 120])
def test_what_another_process_stores_is_found_soon_while_hints_get_lost(peers: int) -> None:
    world = World(peers)
    other = world.driven.add("two")
    world.driven.run(30)
    world.driven.is_bus_up = False
    for _ in range(5):
        world.owner.post(world.channel)
        for process in (world.process, other):
            if process.peers.keys() != world.peers.keys():
                world.driven.at(process).grew(world.channel)
                break
        world.driven.run(2 * TAIL_CHECK_SECS)
        world.assert_level()
    held = next(iter(world.peers.values()))
    held.answer = lambda part: MirrorPosition(part.log_id, "refused")
    world.post()
    held.requests.clear()
    world.driven.run(PEER_HEADS_SECS / 2)
    assert len(held.requests) <= 2, "a log that it refuses is left alone nevertheless"


def test_what_grew_while_hints_got_lost_is_found_when_they_come_again() -> None:
    world = World()
    other = world.driven.add("two")
    world.driven.run(10)
    world.driven.is_bus_up = False
    world.owner.post(world.channel)
    world.driven.at(other).grew(world.channel)
    world.driven.perform_actions()
    world.driven.is_bus_up = True
    world.driven.run(0.1)
    world.assert_level()


def test_a_deleted_guild_is_purged_soon_while_hints_get_lost() -> None:
    world = World()
    other = world.driven.add("two")
    world.driven.run(10)
    world.driven.is_bus_up = False
    world.owner.drop_guild(world.guild)
    world.driven.at(other).grew(world.guild)
    world.driven.run(2 * TAIL_CHECK_SECS)
    assert world.peer.purged == [world.guild]


def test_a_peer_that_purges_nothing_is_not_asked_each_second() -> None:
    world = World()
    other = world.driven.add("two")
    world.driven.run(10)
    world.driven.is_bus_up = False
    world.peer.malformed = b"{}"
    world.owner.drop_guild(world.guild)
    world.peer.requests.clear()
    world.driven.at(other).grew(world.guild)
    world.driven.run(PEER_HEADS_SECS / 2)
    assert 1 <= len(world.peer.requests) <= 2
