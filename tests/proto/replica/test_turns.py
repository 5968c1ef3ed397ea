"""Turns of procedures, and those of gateway sockets that follow logs: what users read does not wait behind all of them."""

from __future__ import annotations

from openguild_proto.effects.logs import FindLogs
from openguild_proto.limits import MAX_SUBS_AT_ONCE
from openguild_proto.procedures import Procedure, Procedures, Signal
from openguild_proto.replica.turns import Turns
from tests.proto.replica.test_gateway import Scene, scene

__all__ = ["scene"]


class Desk:
    """One place, and whose turn it is; a turn lasts until it is ended."""

    def __init__(self) -> None:
        self.procedures = Procedures(lambda what, failure: None)
        self.turns = Turns(self.procedures, 1)
        self.begun: list[str] = []
        self._ends: dict[str, Signal] = {}

    def start(self, name: str) -> None:
        """`name`: the user, and a number."""
        self.procedures.start(self._work(name), "a turn")

    def end(self) -> None:
        """End the turn that began last."""
        self._ends[self.begun[-1]].set()

    def _work(self, name: str) -> Procedure[None]:
        yield from self.turns.enter(name[0])
        self.begun.append(name)
        self._ends[name] = Signal(self.procedures)
        try:
            yield from self._ends[name].wait()
        finally:
            self.turns.leave()


def test_users_have_their_turns_one_after_the_other() -> None:
    desk = Desk()
    for name in ("a1", "a2", "a3", "b1", "c1"):
        desk.start(name)
    assert desk.begun == ["a1"]
    for _ in range(4):
        desk.end()
    assert desk.begun == ["a1", "a2", "b1", "c1", "a3"]
    desk.end()
    desk.start("b2")
    assert desk.begun[-1] == "b2", "the place is free again"


def test_few_sockets_at_once_are_helped_to_follow_logs(scene: Scene) -> None:
    clients = [scene.client() for _ in range(MAX_SUBS_AT_ONCE + 3)]
    held = scene.driven.hold(FindLogs)
    for client in clients:
        client.follow(scene.logs[0])
    assert scene.driven.count(FindLogs) == MAX_SUBS_AT_ONCE
    clients[-3].leave()
    held.release(1)
    clients[0].attend()
    assert scene.driven.count(FindLogs) == MAX_SUBS_AT_ONCE + 1, "the next one, that is still there"
    scene.driven.let_pass(FindLogs)
    clients[0].attend()
    assert [len(client.of("sub_ok")) for client in clients] == [1] * MAX_SUBS_AT_ONCE + [0, 1, 1]
    assert scene.driven.count(FindLogs) == MAX_SUBS_AT_ONCE + 2, "one had left"


def test_turns_come_to_an_end_where_all_who_wait_have_left(scene: Scene) -> None:
    clients = [scene.client() for _ in range(MAX_SUBS_AT_ONCE + 5)]
    scene.driven.hold(FindLogs)
    for client in clients:
        client.follow(scene.logs[0])
    for client in clients:
        client.leave()
    scene.driven.let_pass(FindLogs)
    late = scene.client()
    late.follow(scene.logs[0])
    assert len(late.of("sub_ok")) == 1
