"""Procedures: what waits, what wakes it, and what ends it."""

from __future__ import annotations

from typing import Any

import pytest

from openguild_proto.effects import Overloaded, StorageUnavailable
from openguild_proto.effects.replica import ReadControlHead
from openguild_proto.errors import LocalProtocolError
from openguild_proto.procedures import Procedure, Procedures, Signal, Sleep


class Driver:
    """Procedures with what became of them."""

    def __init__(self) -> None:
        self.defects: list[tuple[str, Exception]] = []
        self.procedures = Procedures(lambda what, failure: self.defects.append((what, failure)))
        self.done: list[tuple[Any, Exception | None]] = []
        self.seen: list[Any] = []

    def start(self, procedure: Procedure[Any]) -> Any:
        return self.procedures.start(procedure, "it", lambda result, error: self.done.append((result, error)))

    def queries(self) -> list[int]:
        """Numbers of what is asked now."""
        numbers = []
        while (query := self.procedures.take_query()) is not None:
            numbers.append(query[0])
        return numbers

    def asks(self) -> Procedure[int]:
        return (yield from ReadControlHead())

    def waits(self, signal: Signal, name: str = "") -> Procedure[str]:
        yield from signal.wait()
        self.seen.append(name)
        return name


@pytest.fixture
def driver() -> Driver:
    return Driver()


def test_an_answer_goes_to_the_procedure_that_asked(driver: Driver) -> None:
    driver.start(driver.asks())
    driver.start(driver.asks())
    first, second = driver.queries()
    driver.procedures.answered(second, 2)
    driver.procedures.answered(first, 1)
    assert driver.done == [(2, None), (1, None)]
    assert driver.procedures.idle


def test_an_answer_counts_once(driver: Driver) -> None:
    def twice() -> Procedure[tuple[int, int]]:
        return (yield from ReadControlHead()), (yield from ReadControlHead())

    driver.start(twice())
    (first,) = driver.queries()
    driver.procedures.answered(first, 1)
    driver.procedures.answered(first, 7)
    driver.procedures.failed(first, StorageUnavailable())
    driver.procedures.answered(99, 7)
    (second,) = driver.queries()
    driver.procedures.answered(second, 2)
    assert driver.done == [((1, 2), None)]


def test_sleepers_wake_in_the_order_of_their_deadlines(driver: Driver) -> None:
    def sleeps(secs: float) -> Procedure[float]:
        yield from Sleep(secs).wait()
        return secs

    driver.procedures.now = 10.0
    for secs in (3.0, 1.0, 2.0):
        driver.start(sleeps(secs))
    assert driver.procedures.next_deadline() == 11.0
    driver.procedures.handle_deadline(10.9)
    assert driver.done == []
    driver.procedures.handle_deadline(12.0)
    assert [result for result, _ in driver.done] == [1.0, 2.0]
    driver.procedures.handle_deadline(13.0)
    assert driver.procedures.next_deadline() is None


def test_time_never_goes_back(driver: Driver) -> None:
    driver.procedures.handle_deadline(10.0)
    driver.procedures.handle_deadline(9.0)
    assert driver.procedures.now == 10.0


def test_a_sleep_of_nothing_gives_the_turn_away(driver: Driver) -> None:
    def sleeps() -> Procedure[None]:
        for number in range(2):
            driver.seen.append(number)
            yield from Sleep(0).wait()

    driver.start(sleeps())
    assert driver.seen == [0]
    driver.procedures.handle_deadline(0.0)
    assert driver.seen == [0, 1], "not both in one call"


def test_a_signal_wakes_all_who_wait_and_holds_nobody_later(driver: Driver) -> None:
    signal = Signal(driver.procedures)
    for name in "ab":
        driver.start(driver.waits(signal, name))
    assert driver.seen == []
    signal.set()
    assert driver.seen == ["a", "b"]
    driver.start(driver.waits(signal, "c"))
    signal.set()
    assert driver.seen == ["a", "b", "c"]
    assert signal.waiting == []


def test_a_procedure_that_sets_a_signal_goes_on_before_those_who_wait(driver: Driver) -> None:
    signal = Signal(driver.procedures)

    def sets() -> Procedure[None]:
        signal.set()
        driver.seen.append("setter")
        yield from Sleep(0).wait()

    driver.start(driver.waits(signal, "waiter"))
    driver.start(sets())
    assert driver.seen == ["setter", "waiter"]


def test_a_procedure_started_by_another_begins_when_that_one_waits(driver: Driver) -> None:
    def inner() -> Procedure[None]:
        driver.seen.append("inner")
        yield from ReadControlHead()

    def outer() -> Procedure[None]:
        driver.start(inner())
        driver.seen.append("outer")
        yield from ReadControlHead()

    driver.start(outer())
    assert driver.seen == ["outer", "inner"]
    assert len(driver.queries()) == 2


def test_a_long_chain_of_signals_needs_no_stack(driver: Driver) -> None:
    signals = [Signal(driver.procedures) for _ in range(5_000)]

    def link(number: int) -> Procedure[None]:
        yield from signals[number].wait()
        if number + 1 < len(signals):
            signals[number + 1].set()

    for number in range(len(signals)):
        driver.start(link(number))
    signals[0].set()
    assert len(driver.done) == len(signals)


@pytest.mark.parametrize("where", ["asked", "asleep", "at a signal"])
def test_a_cancelled_procedure_ends_where_it_waits(driver: Driver, where: str) -> None:
    signal = Signal(driver.procedures)

    def waits() -> Procedure[None]:
        try:
            match where:
                case "asked":
                    yield from ReadControlHead()
                case "asleep":
                    yield from Sleep(1).wait()
                case _:
                    yield from signal.wait()
        except BaseException as ended:
            driver.seen.append(type(ended))
            raise

    cancel = driver.start(waits())
    numbers = driver.queries()
    cancel()
    assert driver.seen == [GeneratorExit]
    for number in numbers:
        driver.procedures.answered(number, 1)
    driver.procedures.handle_deadline(2.0)
    signal.set()
    cancel()
    assert driver.seen == [GeneratorExit], "what comes late finds nothing"
    assert driver.done == []
    assert driver.defects == []
    assert driver.procedures.idle


def test_what_a_cancelled_procedure_sets_on_its_way_out_wakes_others(driver: Driver) -> None:
    signal = Signal(driver.procedures)

    def sets_at_its_end() -> Procedure[None]:
        try:
            yield from ReadControlHead()
        finally:
            signal.set()

    cancel = driver.start(sets_at_its_end())
    driver.start(driver.waits(signal, "waiter"))
    cancel()
    assert driver.done == [("waiter", None)]


def test_a_procedure_cancelled_before_its_turn_never_begins(driver: Driver) -> None:
    def outer() -> Procedure[None]:
        driver.start(driver.asks())()
        yield from Sleep(0).wait()

    driver.start(outer())
    assert driver.queries() == []
    assert driver.defects == []


def test_a_cancelled_procedure_takes_no_failure_that_waits_for_its_turn(driver: Driver) -> None:
    """Its answer came and another procedure, whose turn was first, cancelled it."""
    signal = Signal(driver.procedures)

    def canceller() -> Procedure[None]:
        yield from signal.wait()
        driver.procedures.failed(number, ValueError("late"))
        cancel()

    driver.start(canceller())
    cancel = driver.start(driver.asks())
    (number,) = driver.queries()
    signal.set()
    assert driver.defects == []
    assert driver.done == [(None, None)], "the canceller's end"


@pytest.mark.parametrize("outage", [StorageUnavailable(), Overloaded()])
def test_an_outage_ends_a_procedure_and_is_no_defect(driver: Driver, outage: Exception) -> None:
    driver.start(driver.asks())
    driver.procedures.start(driver.asks(), "nobody's")
    for number in driver.queries():
        driver.procedures.failed(number, outage)
    assert driver.done == [(None, outage)]
    assert driver.defects == []


def test_a_failure_can_be_caught_where_the_effect_was_asked_for(driver: Driver) -> None:
    def tries_again() -> Procedure[int]:
        while True:
            try:
                return (yield from ReadControlHead())
            except StorageUnavailable:
                continue

    driver.start(tries_again())
    driver.procedures.failed(driver.queries()[0], StorageUnavailable())
    driver.procedures.answered(driver.queries()[0], 4)
    assert driver.done == [(4, None)]


def test_a_defect_goes_to_done_or_else_to_the_owner_and_to_no_other_procedure(driver: Driver) -> None:
    def fails() -> Procedure[None]:
        yield from ReadControlHead()
        raise ValueError("mine")

    driver.start(fails())
    driver.procedures.start(fails(), "nobody's")
    driver.start(driver.asks())
    for number in driver.queries():
        driver.procedures.answered(number, 3)
    assert [(result, str(error)) for result, error in driver.done] == [(None, "mine"), (3, "None")]
    assert [(what, str(failure)) for what, failure in driver.defects] == [("nobody's", "mine")]


def test_a_procedure_that_ends_without_waiting_is_done_at_once(driver: Driver) -> None:
    def ends() -> Procedure[str]:
        yield from ()
        return "at once"

    driver.start(ends())
    assert driver.done == [("at once", None)]


def test_a_done_that_starts_another_procedure_is_no_recursion(driver: Driver) -> None:
    left = [5_000]

    def ends() -> Procedure[None]:
        yield from ()

    def again(result: Any, error: Exception | None) -> None:
        left[0] -= 1
        if left[0]:
            driver.procedures.start(ends(), "it", again)

    driver.procedures.start(ends(), "it", again)
    assert left == [0]


@pytest.mark.parametrize("now", [float("inf"), float("nan")])
def test_a_deadline_at_no_time_is_refused_and_what_sleeps_wakes_in_its_time(driver: Driver, now: float) -> None:
    def ticks() -> Procedure[None]:
        while True:
            yield from Sleep(2.0).wait()
            driver.seen.append(driver.procedures.now)

    driver.start(ticks())
    with pytest.raises(LocalProtocolError):
        driver.procedures.handle_deadline(now)
    for second in range(7):
        driver.procedures.handle_deadline(float(second))
    assert driver.seen == [2.0, 4.0, 6.0]
