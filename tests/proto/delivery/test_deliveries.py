"""The delivery of logs to peers, over the store in memory (PROTOCOL 16.8)."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from openguild_proto.delivery.shared import Phase
from openguild_proto.effects.base import StorageUnavailable
from openguild_proto.effects.deliveries import (
    CursorMove,
    FindAffectedPeers,
    FindBehind,
    MoveCursors,
    ReadChains,
)
from openguild_proto.effects.federation import AskPeer, PeerUnavailable
from openguild_proto.effects.logs import ReadLogs
from openguild_proto.effects.mirrors import ReadSnapshot
from openguild_proto.limits import (
    MAX_ASKED_PEERS,
    MAX_DELIVERED_BYTES,
    MAX_DELIVERED_EVENTS,
    PEER_HEADS_SECS,
    PEER_LEASE_SECS,
)
from openguild_proto.records import LogPosition
from openguild_proto.schemas.between_servers import LogDelivery, MirrorPosition
from tests.support.driven_deliveries import ModelPeer
from tests.support.mirrored_guild import World
from tests.support.owner import store


def test_an_event_is_sent_as_soon_as_it_is_stored() -> None:
    world = World()
    world.owner.post(world.channel)
    world.driven.grew_channel(world.channel)
    world.assert_level()
    assert len(world.peer.requests) == 1
    world.driven.run(5 * PEER_HEADS_SECS)
    assert 3 <= len(world.peer.requests[1:]) <= 7, "a sign of life each minute"
    heads = [(part.log_id, part.after) for part in world.peer.requests[-1].logs]
    assert heads == [(log_id, world.peer.logs[log_id].sequence) for log_id in (world.guild, world.channel)]
    assert not any(part.events for request in world.peer.requests[1:] for part in request.logs)


def test_a_mirror_that_lost_events_in_silence_is_found() -> None:
    world = World()
    world.post(10)
    del world.peer.logs[world.channel].events[4:]
    world.driven.run(3 * PEER_HEADS_SECS)
    world.assert_level()


def test_a_thousand_peers_cost_a_request_each_and_few_reads() -> None:
    world = World(peers=300)
    world.post()
    world.driven.run(5)
    assert len(world.process.peers) == 300
    world.driven.run(60)
    world.driven.asked.clear()
    for peer in world.peers.values():
        peer.requests.clear()  # of the joins of the others
    world.post()
    world.driven.run(1)
    world.assert_level()
    assert [len(peer.requests) for peer in world.peers.values()] == [1] * 300
    counts = [
        sum(isinstance(effect, kind) for effect in world.driven.asked)
        for kind in (FindAffectedPeers, ReadLogs, ReadChains)
    ]
    assert counts == [1, 1, 0], "the chain is known"
    stored = [effect for effect in world.driven.asked if isinstance(effect, MoveCursors)]
    assert sum(len(effect.moves) for effect in stored) == 300
    assert len(stored) < 300


def test_peers_that_do_not_answer_hold_up_no_other() -> None:
    world = World(peers=2 * MAX_ASKED_PEERS)
    world.post()
    world.driven.run(5)
    world.assert_level()
    last = list(world.process.peers)[-1]
    world.driven.silent = world.peers.keys() - {last}
    for server in world.driven.silent:
        world.driven.response_times.note(server, 30.0, world.driven.now, answered=False)
    for _ in range(3):
        world.post()
        world.driven.run(1)
        log = world.peers[last].logs[world.channel]
        assert log.events == world.owner.events(world.channel)[log.base :]


def test_a_catch_up_takes_full_requests() -> None:
    world = World()
    channels = [world.channel, *(world.owner.channel(world.guild) for _ in range(9))]
    for channel in channels:
        world.owner.post(channel, 300)
    world.driven.run(2 * PEER_HEADS_SECS)
    world.assert_level()
    assert len(world.peer.requests) <= 3_000 / MAX_DELIVERED_EVENTS + len(channels)
    assert (
        max(sum(len(part.events) for part in request.logs) for request in world.peer.requests) <= MAX_DELIVERED_EVENTS
    )


def test_a_request_is_bounded_in_bytes() -> None:
    world = World()
    world.owner.post(world.channel, 150, "x" * 20_000)
    world.driven.run(2 * PEER_HEADS_SECS)
    world.assert_level()
    for request in world.peer.requests:
        assert sum(len(event.event) for part in request.logs for event in part.events) <= MAX_DELIVERED_BYTES
    assert len(world.peer.requests) <= 5


def test_small_logs_do_not_wait_for_a_large_one() -> None:
    world = World()
    other = world.owner.channel(world.guild)
    world.owner.post(world.channel, 5_000)
    world.owner.post(other, 3)
    world.driven.run(2 * PEER_HEADS_SECS)
    world.assert_level()
    assert any(part.log_id == other for part in world.peer.requests[0].logs)


def test_a_guilds_own_log_goes_before_its_channels() -> None:
    world = World()
    for _ in range(450):
        world.owner.rename(world.guild)
    world.owner.post(world.channel, 10)
    world.driven.run(2 * PEER_HEADS_SECS)
    world.assert_level()
    first = next(number for number, (log_id, _) in enumerate(world.peer.order) if log_id == world.channel)
    assert [log_id for log_id, _ in world.peer.order[:first]] == [world.guild] * 450


def test_lost_answers_repeat_nothing_at_the_mirror() -> None:
    world = World()
    world.driven.loses_answer = lambda: world.driven.random.random() < 0.7
    for _ in range(20):
        world.post(3)
        world.driven.run(20)
    world.driven.loses_answer = lambda: False
    world.driven.run(PEER_HEADS_SECS * 70)
    world.assert_level()


def test_back_off_is_bounded_and_ends_at_contact() -> None:
    world = World()
    attempts: list[float] = []

    def fails(effect: Any) -> Exception | None:
        if isinstance(effect, AskPeer):
            attempts.append(world.driven.now)
            return PeerUnavailable(effect.server, "refused")
        return None

    world.driven.fails = fails
    world.post()
    world.driven.run(86_400)
    assert 24 < len(attempts) < 120
    assert all(later - earlier <= 3_600 for earlier, later in pairwise(attempts))
    machine = world.process.peers[world.peer.server]
    assert (machine.phase, machine.reason) == (Phase.BACKING_OFF, "refused")
    assert machine.counters.backoff_secs > 0
    lines = [line for line in world.driven.lines if line.message == "deliveries to a peer are paused"]
    assert len(lines) == 1, "told once"
    world.post(5)
    assert machine.counters.behind == 1
    world.driven.run(PEER_HEADS_SECS)
    assert machine.counters.behind == 6, "seen while it is away"
    world.driven.fails = lambda effect: None
    world.driven.at(world.process).contacted(world.peer.server)
    world.driven.run(1.5)
    world.assert_level()


def test_a_contact_elsewhere_is_told() -> None:
    world = World()
    other = world.driven.add("two")
    world.driven.run(10)
    assert not other.peers
    world.driven.fails = lambda effect: PeerUnavailable("p0.test", "refused") if isinstance(effect, AskPeer) else None
    world.post()
    world.driven.run(7_200)
    world.driven.fails = lambda effect: None
    for _ in range(3):
        world.driven.at(other).contacted(world.peer.server)
    world.driven.run(1.5)
    world.assert_level()
    world.driven.at(other).contacted("stranger.test")
    assert world.driven.at(other).next_action() is None


def test_what_another_process_stores_is_sent() -> None:
    world = World()
    other = world.driven.add("two")
    world.driven.run(10)
    world.owner.post(world.channel)
    world.driven.at(other).grew(world.channel)
    world.driven.run(0.1)
    world.assert_level()


def test_another_process_goes_on_where_one_was_killed() -> None:
    world = World()
    world.post(3)
    del world.driven.processes[0]
    world.driven.add("two")
    world.owner.post(world.channel, 5)
    world.driven.run(2 * PEER_LEASE_SECS)
    world.assert_level()


def test_a_process_that_drains_leaves_its_leases() -> None:
    world = World()
    other = world.driven.add("two")
    world.driven.run(10)
    world.driven.at(world.process).drain()
    world.driven.run(PEER_LEASE_SECS / 3)
    assert (list(world.process.peers), list(other.peers)) == ([], [world.peer.server])
    world.owner.post(world.channel)
    world.driven.at(world.process).grew(world.channel)
    world.driven.at(other).grew(world.channel)
    world.driven.run(0.1)
    world.assert_level()


@pytest.mark.parametrize("status", ["unknown", "refused", "epoch", "quux"])
def test_a_log_that_is_not_taken_is_left_alone_for_a_while(status: str) -> None:
    world = World()
    other = world.owner.channel(world.guild)
    world.driven.run(2 * PEER_HEADS_SECS)
    world.peer.requests.clear()

    def refuse(part: LogDelivery) -> MirrorPosition | None:
        return MirrorPosition(part.log_id, status, reason="r" * 9_999) if part.log_id == world.channel else None

    world.peer.answer = refuse
    for _ in range(100):
        world.post()
        world.owner.post(other)
        world.grew(other)
    assert world.peer.logs[other].sequence == 100
    refused = [request for request in world.peer.requests if any(part.log_id == world.channel for part in request.logs)]
    counters = world.process.peers[world.peer.server].counters
    if status == "unknown":  # it may be joining
        assert len(refused) <= 4
        world.driven.run(5)
        assert counters.held <= 5
    else:
        assert len(refused) == 1
        assert (counters.held, counters.behind) == (1, 1)
    line, *_ = [line for line in world.driven.lines if "does not accept" in line.message]
    assert line.fields["status"] == ("malformed" if status == "quux" else status)
    assert len(line.fields["reason"]) == 200
    world.driven.run(3 * PEER_HEADS_SECS)
    assert counters.held <= 12
    world.peer.answer = lambda part: None
    world.driven.run(2 * PEER_HEADS_SECS)
    world.assert_level()


@pytest.mark.parametrize("places", [(0,), (0, 3), (-1,), (2**63,)])
def test_answers_that_go_round_in_circles_are_no_busy_loop(places: tuple[int, ...]) -> None:
    world = World()
    said = iter(places * 10_000)
    world.peer.answer = lambda part: MirrorPosition(part.log_id, "ok", part.epoch, next(said))
    world.post(6)
    assert len(world.peer.requests) <= 4
    world.driven.run(10 * PEER_HEADS_SECS)
    assert len(world.peer.requests) <= 60


def test_a_mirror_that_lost_events_gets_them_again() -> None:
    world = World()
    world.post(10)
    del world.peer.logs[world.channel].events[4:]
    world.post()
    world.assert_level()


def test_a_mirror_that_is_gone_is_told_of_but_not_hammered() -> None:
    world = World()
    world.peer.logs.clear()
    world.owner.rename(world.guild)
    world.driven.grew()
    world.post(5)
    world.driven.run(5 * PEER_HEADS_SECS)
    assert 1 <= len(world.peer.requests) <= 16, "at doubling times, then each minute"
    assert all(request.logs[0].log_id == world.guild for request in world.peer.requests)


def test_the_removal_is_the_last_event() -> None:
    world = World()
    world.post(2)
    last = world.owner.leave(world.guild, world.users[0])
    world.owner.rename(world.guild)
    world.post(3)
    world.driven.grew()
    world.driven.run(2 * PEER_HEADS_SECS)
    assert world.peer.order[-1] == (world.guild, last)
    assert world.peer.purged == [world.guild]
    assert [log_id for log_id, _ in world.peer.order].count(world.channel) == 2
    requests = len(world.peer.requests)
    world.driven.run(5 * PEER_HEADS_SECS)
    assert len(world.peer.requests) == requests
    assert not world.process.peers, "nobody mirrors anything"


def test_a_deleted_guild_is_purged() -> None:
    world = World()
    world.post(2)
    world.owner.drop_guild(world.guild)
    world.driven.run(2 * PEER_HEADS_SECS)
    assert world.peer.purged == [world.guild]
    assert not world.process.peers


def test_a_purge_is_asked_again_until_it_is_done() -> None:
    world = World()
    attempts = 0

    def fails(effect: Any) -> Exception | None:
        nonlocal attempts
        if isinstance(effect, AskPeer):
            attempts += 1
            return PeerUnavailable(effect.server, "timeout", sent=True) if attempts < 4 else None
        return None

    world.driven.fails = fails
    world.owner.leave(world.guild, world.users[0])
    world.driven.grew()
    world.driven.run(10 * PEER_HEADS_SECS)
    assert world.peer.purged == [world.guild]


def test_a_log_of_a_new_epoch_is_told_and_the_rest_of_the_guild_waits() -> None:
    world = World()
    log = world.peer.logs[world.guild]
    log.epoch = 7
    former = CursorMove(world.peer.server, LogPosition(world.guild, 7, log.sequence))
    world.owner.tables.perform(MoveCursors(moves=(former,)))
    world.post()
    (request,) = world.peer.requests
    assert [(part.log_id, part.epoch, part.events) for part in request.logs] == [(world.guild, 1, [])]
    snapshot = world.owner.tables.perform(ReadSnapshot(peer=world.peer.server, guild_id=world.guild))
    assert snapshot is not None
    store(world.peer, snapshot)
    world.driven.run(2 * PEER_HEADS_SECS)
    world.post()
    world.assert_level()


def test_a_guild_joined_later_is_noticed_at_once() -> None:
    world = World()
    guild = world.owner.guild()
    channel = world.owner.channel(guild)
    world.driven.grew()
    world.owner.post(channel)
    world.driven.grew_channel(channel)
    world.owner.join(guild, world.peer)
    world.driven.grew()
    world.owner.post(channel)
    world.driven.grew_channel(channel)
    world.driven.run(1.1)
    assert world.peer.logs[channel].events == world.owner.events(channel)[1:]


def test_a_peer_that_begins_to_mirror_is_delivered_to_at_once() -> None:
    world = World()
    world.driven.run(10)
    stranger = world.peers["new.test"] = ModelPeer("new.test")
    world.owner.join(world.guild, stranger)
    world.driven.grew()
    world.post()
    world.driven.run(0.1)
    world.assert_level()


def test_an_outage_of_the_store_is_survived() -> None:
    world = World()
    world.driven.fails = lambda effect: StorageUnavailable() if not isinstance(effect, AskPeer) else None
    world.owner.post(world.channel, 3)
    world.driven.grew_channel(world.channel)
    world.driven.run(5)
    world.driven.fails = lambda effect: None
    world.driven.run(3)
    world.assert_level()
    world.driven.fails = lambda effect: StorageUnavailable() if isinstance(effect, MoveCursors | FindBehind) else None
    world.post()
    world.driven.run(30)
    world.driven.fails = lambda effect: None
    world.driven.run(3)
    world.assert_level()
