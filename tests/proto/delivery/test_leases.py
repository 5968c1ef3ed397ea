"""Processes share the peers that they deliver to (PROTOCOL 16.8.12)."""

from __future__ import annotations

import pytest

from openguild_proto.delivery.actions import Query
from openguild_proto.delivery.deliveries import Deliveries
from openguild_proto.effects.base import StorageUnavailable
from openguild_proto.effects.deliveries import FindBehind, FindEnded, TakeLeases
from openguild_proto.limits import PEER_LEASE_SECS, TAIL_CHECK_SECS
from tests.support.driven_deliveries import SIGNER, ModelPeer
from tests.support.mirrored_guild import World

OURS = ValueError("a defect")


@pytest.mark.parametrize("peers", [1, 7, 90])
def test_a_process_that_joins_late_gets_its_share(peers: int) -> None:
    world = World(peers=peers)
    world.driven.run(5)
    assert len(world.process.peers) == peers
    late = world.driven.add("late")
    later = world.driven.add("later")
    world.driven.run(30)
    held = [len(process.peers) for process in (world.process, late, later)]
    assert (sum(held), max(held)) == (peers, -(-peers // 3))
    before = [set(process.peers) for process in world.driven.processes]
    world.driven.run(60)
    assert [set(process.peers) for process in world.driven.processes] == before, "nobody takes turns"
    for process in world.driven.processes:
        world.driven.at(process).grew(world.channel)
    world.owner.post(world.channel)
    world.grew(world.channel)
    world.driven.run(1)
    world.assert_level()


def test_the_others_take_over_from_one_that_was_killed() -> None:
    world = World(peers=9)
    others = [world.driven.add("two"), world.driven.add("three")]
    world.driven.run(30)
    world.driven.processes.remove(world.process)
    world.driven.run(2 * PEER_LEASE_SECS + 10)
    held = [len(process.peers) for process in others]
    assert (sum(held), max(held)) == (9, 5)


def test_a_peer_that_joins_while_leases_are_taken_does_not_wait_for_the_next_round() -> None:
    world = World(peers=0)
    joining = world.peers["late.test"] = ModelPeer("late.test")
    process = Deliveries("two", SIGNER, lambda: 0.5)
    world.driven.processes[:] = [process]
    world.driven.at(process).start()
    asked = process.next_action()
    assert isinstance(asked, Query)
    nobody = world.driven.tables.perform(asked.effect)
    world.owner.join(world.guild, joining)
    world.driven.grew()
    process.answered(asked.number, nobody)
    world.driven.run(0.1)
    assert list(process.peers) == [joining.server]


def test_peers_that_join_at_once_are_all_delivered_to_within_a_second() -> None:
    world = World(peers=0)
    world.driven.run(60)
    for name in ("one.test", "two.test", "three.test"):
        joining = world.peers[name] = ModelPeer(name)
        world.owner.join(world.guild, joining)
        world.driven.grew()
        world.driven.run(0.2)
    world.driven.run(1)
    assert sorted(world.process.peers) == ["one.test", "three.test", "two.test"]


@pytest.mark.parametrize("holds", [True, False], ids=["which delivers", "beside the one that delivers"])
def test_peers_hear_at_once_of_a_guild_that_a_process_deletes(holds: bool) -> None:
    world = World()
    other = world.driven.add("two")
    world.driven.run(10)
    head = world.owner.tables.control_head()
    world.owner.drop_guild(world.guild)
    deletes = world.process if holds else other
    for record in world.owner.tables.control_since(head, 10):
        world.driven.at(deletes).recorded(record)
    world.driven.run(0.5)
    assert world.guild not in world.peer.logs
    assert world.owner.tables.perform(FindEnded(world.peer.server)) == ()


def test_a_defect_in_the_taking_of_leases_ends_no_later_one() -> None:
    world = World()
    world.driven.run(10)
    defects: list[Exception] = []
    world.driven.defects = defects
    world.driven.fails = lambda effect: OURS if isinstance(effect, TakeLeases) else None
    world.driven.run(2 * PEER_LEASE_SECS)
    assert len(defects) > 1
    assert list(world.process.peers) == [], "another process may deliver now"
    world.driven.fails = lambda effect: None
    late = world.peers["late.test"] = ModelPeer("late.test")
    world.owner.join(world.guild, late)
    world.driven.grew()
    world.driven.run(PEER_LEASE_SECS)
    assert len(world.process.peers) == 2
    world.post()
    world.assert_level()


def test_a_defect_in_a_look_while_hints_get_lost_ends_no_later_one() -> None:
    world = World()
    other = world.driven.add("two")
    world.driven.run(10)
    world.driven.is_bus_up = False
    defects: list[Exception] = []
    world.driven.defects = defects
    world.driven.fails = lambda effect: OURS if isinstance(effect, FindBehind) else None
    world.driven.run(2 * TAIL_CHECK_SECS)
    assert defects
    world.driven.fails = lambda effect: None
    world.driven.run(60)
    world.owner.post(world.channel)
    process = next(each for each in (world.process, other) if not each.peers)
    world.driven.at(process).grew(world.channel)
    world.driven.run(2 * TAIL_CHECK_SECS)
    world.assert_level()


def test_a_lost_lease_ends_the_delivery() -> None:
    world = World()
    world.driven.fails = lambda effect: StorageUnavailable() if isinstance(effect, TakeLeases) else None
    world.driven.run(PEER_LEASE_SECS / 2)
    assert world.process.peers
    world.driven.run(PEER_LEASE_SECS)
    assert not world.process.peers
