"""Values of receipt chains, computed when somebody asks (PROTOCOL 16.9)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from openguild_proto.canonical.keys import EventSigner, decode_unpadded
from openguild_proto.canonical.receipts import chain_over, first_link, receipt_message
from openguild_proto.canonical.signing import SigningKey, verify
from openguild_proto.effects.base import Operation
from openguild_proto.effects.deliveries import MoveChains, ReadChains, ReadEventIds
from openguild_proto.effects.logs import ReadLogs
from openguild_proto.limits import CHAIN_STEP
from openguild_proto.log import chains
from openguild_proto.log.chains import ChainCache, ChainPoint, begun_chains_at, chains_at, receipt_at, with_chains
from openguild_proto.mirror_records import MirroredChannel, Snapshot
from openguild_proto.records import LogPart, LogPosition
from tests.support.owner import Owner

SIGNER = EventSigner("owner.test", "1", SigningKey(bytes(32)))


class World:
    def __init__(self, events: int) -> None:
        self.owner = Owner()
        self.guild = self.owner.guild()
        self.channel = self.owner.channel(self.guild)
        self.owner.post(self.channel, events)
        self.asked: list[Any] = []

    def run(self, operation: Operation[Any]) -> Any:
        result = None
        while True:
            try:
                effect = operation.send(result)
            except StopIteration as end:
                return end.value
            self.asked.append(effect)
            result = self.owner.tables.perform(effect)  # type: ignore[arg-type]  # all are the store's

    def place(self, sequence: int) -> LogPosition:
        return LogPosition(self.channel, 1, sequence)

    def expected(self, begin: int, upto: int) -> bytes:
        part = LogPart(self.channel, begin, upto - begin)
        events = self.owner.tables.perform(ReadLogs(parts=(part,)))
        ids = [(event.sequence, event.event_id) for event in events]
        return chain_over(first_link(self.channel, 1, begin), self.channel, 1, ids)


def test_a_chain_begins_where_somebody_needs_it_first() -> None:
    world = World(10)
    assert world.run(chains_at([world.place(4)])) == {}
    assert world.run(begun_chains_at([world.place(4)])) == {world.place(4): world.expected(4, 4)}
    assert world.run(begun_chains_at([world.place(9)])) == {world.place(9): world.expected(4, 9)}
    assert world.run(begun_chains_at([world.place(2)])) == {}, "before it begins"
    assert world.run(chains_at([world.place(11)])) == {}, "the log has no such event"


def test_values_on_the_way_are_kept_so_that_few_ids_are_read() -> None:
    world = World(2_600)
    world.run(begun_chains_at([world.place(3)]))
    world.asked.clear()
    assert world.run(chains_at([world.place(2_590)])) == {world.place(2_590): world.expected(3, 2_590)}
    assert [type(effect) for effect in world.asked] == [ReadChains, ReadEventIds, ReadEventIds, MoveChains]
    assert len(world.asked[-1].checkpoints) == 2_590 // CHAIN_STEP
    world.asked.clear()
    (part,) = world.owner.tables.perform(ReadChains(places=(world.place(2_590),), limit=9_999))
    assert len(part.event_ids) < CHAIN_STEP
    assert world.run(chains_at([world.place(600)])) == {world.place(600): world.expected(3, 600)}
    assert len(world.asked) == 1


def test_a_receipt_is_the_owners_signature() -> None:
    world = World(5)
    world.run(begun_chains_at([world.place(1)]))
    receipt = world.run(receipt_at(world.place(5), SIGNER))
    assert receipt.point == ChainPoint(world.place(5), world.expected(1, 5))
    message = receipt_message(receipt.point.hash, world.channel, 1, 5)
    assert verify(SIGNER.public, message, receipt.signature)
    assert len(message) != 32, "as long as the hash of an event"
    assert world.run(receipt_at(world.place(0), SIGNER)) is None
    assert world.run(receipt_at(world.place(5), None)).signature is None


def test_a_snapshot_has_the_chains_at_its_heads() -> None:
    world = World(5)
    world.run(begun_chains_at([world.place(2)]))
    other = world.owner.channel(world.guild)
    made = [MirroredChannel(channel, "c", 0, 1, sequence, 0) for channel, sequence in ((world.channel, 5), (other, 0))]
    snapshot = world.run(with_chains(Snapshot(world.guild, "g", 0, 1, 3, members=[], channels=made)))
    texts = [snapshot.chain, *(channel.chain for channel in snapshot.channels)]
    assert [decode_unpadded(text) for text in texts] == [
        first_link(world.guild, 1, 3), world.expected(2, 5), first_link(other, 1, 0),
    ]  # fmt: skip
    assert world.run(with_chains(snapshot)) == snapshot


@pytest.mark.parametrize("change", [
    lambda part: (part[0], part[1], part[2], "x"), lambda part: (part[0], part[1], part[2] + 1, part[3]),
    lambda part: (part[0], part[1] + 1, part[2], part[3]), lambda part: ("log2", part[1], part[2], part[3]),
])  # fmt: skip
def test_every_part_of_a_place_counts(change: Callable[[Any], Any]) -> None:
    log_id, epoch, sequence, event = changed = change(("log1", 1, 4, "a"))
    assert changed != ("log1", 1, 4, "a")
    value = first_link("log1", 1, 3)
    assert chain_over(value, log_id, epoch, [(sequence, event)]) != chain_over(value, "log1", 1, [(4, "a")])


def test_the_cache_is_bounded() -> None:
    cache = ChainCache(max_logs=2)
    for log_id in "abc":
        for sequence in range(6):
            cache.add(ChainPoint(LogPosition(log_id, 1, sequence), bytes([sequence])))
        cache.get(LogPosition("b", 1, 5))
    held = [(log_id, n) for log_id in "abc" for n in range(6) if cache.get(LogPosition(log_id, 1, n)) is not None]
    assert held == [(log_id, n) for log_id in "bc" for n in range(6 - chains.CACHED_VALUES, 6)]
