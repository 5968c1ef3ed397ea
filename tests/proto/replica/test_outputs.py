"""What was decided and is not carried out yet."""

from __future__ import annotations

from collections.abc import Iterator

from openguild_proto.effects.replica import ReadControlHead
from openguild_proto.fanout.hub import Hub
from openguild_proto.limits import MAX_WAITING_WORKS, SOCKETS_AT_ONCE
from openguild_proto.procedures import Procedure
from openguild_proto.replica.actions import PASS, AnyAction, Close, Flush, Level, Log, Query, Urgency
from openguild_proto.replica.outputs import Outputs


def taken(outputs: Outputs) -> list[AnyAction]:
    actions = []
    while (action := outputs.next_action()) is not None:
        actions.append(action)
    return actions


def test_questions_go_first_then_actions_then_works() -> None:
    outputs = Outputs(Hub())
    outputs.add_each([1], lambda number: Close(number, 1000, ""))
    outputs.log(Level.INFO, "a line")
    outputs.procedures.start(iter_of(ReadControlHead()), "it")
    assert [type(action) for action in taken(outputs)] == [Query, Log, Close]


def iter_of(effect: ReadControlHead) -> Iterator[ReadControlHead]:  # a procedure that asks once
    return (yield from effect)


def test_works_are_decided_as_they_are_taken_in_order() -> None:
    outputs = Outputs(Hub())
    decided: list[str] = []

    def decide(item: str) -> Close | None:
        decided.append(item)
        return Close(item, 1000, "") if item != "skip" else None

    outputs.add_each(["a", "skip", "b"], decide)
    outputs.add_each(["c"], decide)
    outputs.add_each([], decide)
    assert decided == []
    assert outputs.next_action() == Close("a", 1000, "")
    assert decided == ["a"]
    assert taken(outputs) == [PASS, Close("b", 1000, ""), Close("c", 1000, "")]


def test_an_action_that_comes_meanwhile_goes_before_the_rest_of_a_work() -> None:
    outputs = Outputs(Hub())
    outputs.add_each(range(2), lambda number: Close(number, 1000, ""))
    assert outputs.next_action() == Close(0, 1000, "")
    outputs.log(Level.INFO, "a line")
    assert [type(action) for action in taken(outputs)] == [Log, Close]


def test_a_decision_that_fails_is_a_line_and_the_others_are_made() -> None:
    outputs = Outputs(Hub())

    def decide(number: int) -> Close:
        if number == 1:
            raise ValueError
        return Close(number, 1000, "")

    outputs.add_each(range(3), decide)
    first, line, last = taken(outputs)
    assert (first, last) == (Close(0, 1000, ""), Close(2, 1000, ""))
    assert isinstance(line, Log)
    assert isinstance(line.failure, ValueError)


def test_a_long_work_lets_others_have_their_turn() -> None:
    outputs = Outputs(Hub())
    ended: list[object] = []
    work = outputs.each(range(SOCKETS_AT_ONCE + 1), lambda number: Close(number, 1000, ""))
    outputs.procedures.start(work, "a long work", lambda *end: ended.append(end))
    outputs.add_each(["other"], lambda item: Close(item, 1000, ""))
    order = [action.socket for action in taken(outputs) if isinstance(action, Close)]
    assert order == [*range(SOCKETS_AT_ONCE), "other", SOCKETS_AT_ONCE]
    assert ended == [(None, None)]


def test_what_comes_of_the_end_of_a_work_is_taken_with_it() -> None:
    outputs = Outputs(Hub())

    def work() -> Procedure[None]:
        yield from outputs.each(["first"], lambda item: Close(item, 1000, ""))
        outputs.add(Close("then", 1000, ""))

    outputs.procedures.start(work(), "a work, and something behind it")
    assert [action.socket for action in taken(outputs) if isinstance(action, Close)] == ["first", "then"]


def test_a_long_work_that_breaks_off_has_ended() -> None:
    outputs = Outputs(Hub())
    ended: list[object] = []
    work = outputs.each((1 // number for number in (1, 0, 1)), lambda number: Close(number, 1000, ""))
    outputs.procedures.start(work, "a long work", lambda *end: ended.append(end))
    assert [type(action) for action in taken(outputs)] == [Close, Log]
    assert ended == [(None, None)]


def test_an_iterator_that_fails_is_a_line_and_the_other_works_are_done() -> None:
    outputs = Outputs(Hub())

    class Broken:
        """Fails whenever it is asked again."""

        def __iter__(self) -> Iterator[int]:
            return self

        def __next__(self) -> int:
            raise ValueError

    outputs.add_each(Broken(), lambda number: Close(number, 1000, ""))
    outputs.add_each([1], lambda number: Close(number, 1000, ""))
    line, last = taken(outputs)
    assert isinstance(line, Log)
    assert isinstance(line.failure, ValueError)
    assert last == Close(1, 1000, "")


def test_so_many_works_press() -> None:
    outputs = Outputs(Hub())
    for _ in range(MAX_WAITING_WORKS):
        outputs.add_each([1], lambda number: None)
    assert not outputs.is_pressed
    outputs.add_each([1], lambda number: None)
    assert outputs.is_pressed
    taken(outputs)
    assert not outputs.is_pressed


def test_a_ring_is_flushed_once_however_often_it_is_marked() -> None:
    outputs = Outputs(Hub())
    for _ in range(3):
        outputs.mark("ring")
    assert taken(outputs) == [Flush("ring")]
    outputs.mark("ring")
    assert taken(outputs) == [Flush("ring")], "what came after it was taken needs another"


def test_a_ring_that_fills_is_flushed_in_haste() -> None:
    hub = Hub(capacity_events=8)
    hub.open("ring", 0)
    outputs = Outputs(hub)
    urgencies = []
    for sequence in range(1, 200):
        flush = outputs.publish("ring", b"frame", sequence)
        urgencies.append(flush.urgency if flush is not None else None)
    assert urgencies[:4] == [Urgency.SOON, None, None, Urgency.NOW]
    assert urgencies.index(Urgency.COMPLETELY) > urgencies.index(Urgency.NOW)
    assert set(urgencies[urgencies.index(Urgency.COMPLETELY) :]) == {Urgency.COMPLETELY}
