"""Receipt chains of logs in memory."""

from __future__ import annotations

from openguild_proto.effects.deliveries import (
    BeginChains,
    ChainPart,
    ChainPoint,
    MoveChains,
    ReadChains,
    ReadEventIds,
)
from openguild_proto.effects.logs import FindLogHead
from openguild_proto.effects.performs import performs
from openguild_proto.memory.logs import find_log_head
from openguild_proto.memory.state import KeptChain, State
from openguild_proto.records import LogPosition


@performs(ReadChains)
def read_chains(state: State, effect: ReadChains) -> tuple[ChainPart, ...]:
    parts = []
    for place in effect.places:
        chain = state.chains.get(place.log_id)
        if chain is None or chain.epoch != place.epoch:
            continue
        kept = [*chain.checkpoints.items(), chain.tip]
        known, value = max((each for each in kept if each[0] <= place.sequence), default=(-1, b""))
        if known < 0:
            continue
        events = (state.events_of(place.log_id) or [])[known : min(place.sequence, known + effect.limit)]
        point = ChainPoint(LogPosition(place.log_id, place.epoch, known), value)
        parts.append(ChainPart(point, tuple(event.event_id for event in events)))
    return tuple(parts)


@performs(BeginChains)
def begin_chains(state: State, effect: BeginChains) -> None:
    for point in effect.points:
        known = state.chains.get(point.place.log_id)
        head = find_log_head(state, FindLogHead(log_id=point.place.log_id))
        if head is None or head.epoch != point.place.epoch or (known is not None and known.epoch == head.epoch):
            continue
        begun = (point.place.sequence, point.hash)
        state.chains[point.place.log_id] = KeptChain(head.epoch, begun, dict([begun]))


@performs(MoveChains)
def move_chains(state: State, effect: MoveChains) -> None:
    for point in effect.tips:
        chain = _chain(state, point)
        if chain is not None and chain.tip[0] < point.place.sequence:
            chain.tip = (point.place.sequence, point.hash)
    for point in effect.checkpoints:
        chain = _chain(state, point)
        if chain is not None:
            chain.checkpoints[point.place.sequence] = point.hash


def _chain(state: State, point: ChainPoint) -> KeptChain | None:
    chain = state.chains.get(point.place.log_id)
    return chain if chain is not None and chain.epoch == point.place.epoch else None


@performs(ReadEventIds)
def read_event_ids(state: State, effect: ReadEventIds) -> tuple[str, ...]:
    events = (state.events_of(effect.log_id) or [])[effect.after : effect.after + effect.limit]
    return tuple(event.event_id for event in events)
