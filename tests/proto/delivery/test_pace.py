"""What peers have missed is sent at a pace that leaves the process to its users."""

from __future__ import annotations

from openguild_proto.limits import BULK_EVENTS_PER_SEC, BUSY_BULK_EVENTS_PER_SEC, PEER_HEADS_SECS
from tests.support.driven_deliveries import ModelPeer
from tests.support.mirrored_guild import World

MISSED = 400


def caught_up(world: World) -> float:
    """The seconds until all peers have what they missed."""
    begun = world.driven.now
    assert sum(log.sequence for peer in world.peers.values() for log in peer.logs.values()) < 3 * MISSED
    while any(peer.logs[world.channel].sequence < MISSED for peer in world.peers.values()):
        world.driven.run(0.01)
    world.assert_level()
    return world.driven.now - begun


def test_catch_ups_of_all_peers_together_have_a_pace() -> None:
    world = World(peers=3)
    world.driven.run(PEER_HEADS_SECS)
    world.owner.post(world.channel, MISSED)
    for peer in world.driven.at(world.driven.processes[0]).peers.values():
        peer.reread()
    world.driven.perform_actions()
    assert 0.8 <= caught_up(world) * BULK_EVENTS_PER_SEC / (3 * MISSED) <= 1.3


def test_they_are_slower_while_users_post() -> None:
    world = World(peers=3)
    world.driven.run(PEER_HEADS_SECS)
    world.post(MISSED)
    assert 0.7 <= caught_up(world) * BUSY_BULK_EVENTS_PER_SEC / (3 * MISSED) <= 1.3


def test_news_does_not_wait_for_a_catch_up() -> None:
    world = World(peers=2)
    guild = world.owner.guild()
    channel = world.owner.channel(guild)
    level = world.peers["new.test"] = ModelPeer("new.test")
    world.owner.join(guild, level)
    world.driven.run(2 * PEER_HEADS_SECS)
    world.owner.post(world.channel, MISSED)
    world.owner.post(channel)
    for each in (world.channel, channel):
        world.driven.grew_channel(each)
    world.driven.run(0.005)
    assert level.logs[channel].sequence == 1
    assert any(world.peers[server].logs[world.channel].sequence < MISSED for server in ("p0.test", "p1.test"))
