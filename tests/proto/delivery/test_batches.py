"""What goes into a delivery (PROTOCOL 16.8)."""

from __future__ import annotations

import hypothesis.strategies as st
import msgspec
from hypothesis import given

from openguild_proto.delivery.batches import FAIR_EVENTS, LogBatch, assemble, choose, cut, parts_of, weight
from openguild_proto.effects.deliveries import BehindLog
from openguild_proto.limits import MAX_DELIVERED_EVENTS, MAX_DELIVERED_LOGS
from openguild_proto.records import LogPosition, StoredEvent
from openguild_proto.schemas.between_servers import Delivery, EndedGuild, check_delivery


def log(guild: str, name: str, missing: int, *, after: int = 0, epoch: int = 1) -> BehindLog:
    return BehindLog(guild, LogPosition(name, 1, after + missing), after, epoch)


@st.composite
def logs(draw: st.DrawFn) -> list[BehindLog]:
    made = []
    for guild in range(draw(st.integers(0, 4))):
        names = [f"g{guild}", *(f"g{guild}c{number}" for number in range(draw(st.integers(0, 5))))]
        for name in names:
            epoch = draw(st.sampled_from([1, 1, 1, 2]))
            made.append(log(f"g{guild}", name, draw(st.integers(1, 300)), after=draw(st.integers(0, 9)), epoch=epoch))
    return draw(st.permutations(made))


@given(logs(), st.integers(1, MAX_DELIVERED_EVENTS))
def test_a_choice_is_full_and_guilds_come_first(behind: list[BehindLog], room: int) -> None:
    wanted = choose(behind, room)
    assert sum(each.size for each in wanted) <= room
    missing = {each.log_id: each.head.sequence - each.after if each.epoch == 1 else 0 for each in behind}
    of_guilds = {each.log_id for each in behind if each.is_guild}
    chosen = {each.log.log_id: each.size for each in wanted}
    assert all(size <= missing[log_id] for log_id, size in chosen.items())
    kinds = [each.log.is_guild for each in wanted]
    assert kinds == sorted(kinds, reverse=True)
    for each in wanted:
        guild = next((one for one in behind if one.log_id == each.log.guild_id), None)
        if not each.log.is_guild and guild is not None:
            assert guild.epoch == 1
            assert chosen[guild.log_id] == missing[guild.log_id]
    if sum(each.size for each in wanted) < room:
        free = [
            each for each in behind
            if each.is_guild or each.guild_id not in of_guilds or chosen.get(each.guild_id) == missing[each.guild_id] > 0
        ]  # fmt: skip
        assert all(chosen.get(each.log_id) == missing[each.log_id] for each in free)
    assert bool(wanted) == bool(behind)


def test_a_large_log_leaves_room_for_others() -> None:
    wanted = choose([log("g", "a", 9_999), log("g", "b", 9_999), log("g", "c", 5)])
    assert [each.size for each in wanted] == [MAX_DELIVERED_EVENTS - FAIR_EVENTS - 5, FAIR_EVENTS, 5]


def test_a_delivery_has_bounded_logs() -> None:
    wanted = choose([log("g", f"c{number}", 1, epoch=2) for number in range(500)])
    assert len(wanted) == MAX_DELIVERED_LOGS


def event(log_id: str, sequence: int, size: int = 10) -> StoredEvent:
    return StoredEvent(log_id, sequence, f"${sequence}", b"x" * size, 5)


def test_the_bytes_are_bounded_but_one_event_always_goes() -> None:
    events = [event("a", 1, 600), event("a", 2, 600), event("b", 1, 10)]
    assert {name: len(found) for name, found in cut(events, 1_250).items()} == {"a": 2, "b": 1}
    assert {name: len(found) for name, found in cut(events, 1_200).items()} == {"a": 2}
    assert {name: len(found) for name, found in cut(events, 1_199).items()} == {"a": 1}
    assert {name: len(found) for name, found in cut(events, 1).items()} == {"a": 1}


def test_what_is_not_read_waits_or_is_gone() -> None:
    wanted = [LogBatch(log("g", name, 2), 2) for name in ("gone", "a", "b")] + [LogBatch(log("h", "h", 2, epoch=3), 0)]
    assert [part.log_id for part in parts_of(wanted)] == ["gone", "a", "b"]
    prepared = assemble(wanted, {"a": [event("a", 1)]}, {}, [LogPosition("ended", 1, 7)])
    assert prepared.gone == ("gone",)
    assert [(part.log.log_id, part.last) for part in prepared.sent] == [("a", 1), ("h", 0)]
    assert prepared.events == 1
    delivery = msgspec.json.decode(prepared.body, type=Delivery)
    assert check_delivery(delivery) is None
    assert delivery.ended == [EndedGuild("ended", 1, 7)]
    assert [(part.log_id, part.epoch, part.after, len(part.events)) for part in delivery.logs] == [
        ("a", 1, 0, 1), ("h", 1, 2, 0),
    ]  # fmt: skip


@given(st.text(max_size=50))
def test_the_bytes_are_those_of_the_body(text: str) -> None:
    wire = msgspec.json.encode({"text": text})
    assert weight(wire) == len(msgspec.json.encode(wire.decode())) - 2
