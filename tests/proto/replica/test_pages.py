"""Pages of the log: read once for all, grown with the log, bounded in memory, and nothing kept for sockets that are gone."""

from __future__ import annotations

import gc
import tracemalloc
from typing import Any

import pytest

from openguild_proto.effects import StorageUnavailable
from openguild_proto.effects.channels import ReadEvents
from openguild_proto.fanout.hub import Hub
from openguild_proto.limits import PIECE_BYTES
from openguild_proto.memory import MemoryTables
from openguild_proto.replica.actions import Log as Line
from openguild_proto.replica.actions import Query, Replay
from openguild_proto.replica.outputs import Outputs
from openguild_proto.replica.pages import Pages, Pieces
from tests.support.elsewhere import Elsewhere


class Log:
    """The pages of one channel, and which reads reached the store. While `held` it does not answer."""

    def __init__(self, kept_bytes: int = 100_000) -> None:
        self.outputs = Outputs(Hub())
        self.pages = Pages(self.outputs, kept_bytes)
        self.elsewhere = Elsewhere(MemoryTables())
        self.channel = self.elsewhere.channel(self.elsewhere.user())
        self.length = 0
        self.reads: list[tuple[int | None, int]] = []
        self.held = self.away = False
        self.waiting: list[Query] = []
        self.replays: list[Any] = []
        self.lines: list[Line] = []

    def grow(self, count: int, text: str = "hi") -> None:
        for _ in range(count):
            self.length += 1
            self.elsewhere.append(self.channel, f"{text}<{self.length}>")

    def ask(self, after: int, count: int, socket: Any = "one") -> Pieces | None:
        pieces = self.pages.get(self.channel, 1, after, count, socket)
        self.perform_actions()
        return pieces

    def read(self, after: int, count: int, socket: Any = "one") -> Pieces:
        """As a socket does: asks, waits for its turn, and asks again."""
        for _ in range(3):
            pieces = self.ask(after, count, socket)
            if pieces is not None:
                return pieces
            assert self.replays.pop() == socket
        raise AssertionError("no end of it")

    def perform_actions(self) -> None:
        while (action := self.outputs.next_action()) is not None:
            match action:
                case Query(effect=ReadEvents() as effect):
                    self.reads.append((effect.after, effect.limit))
                    self.waiting.append(action)
                    if not self.held:
                        self.answer()
                case Replay(socket=socket):
                    self.replays.append(socket)
                case Line():
                    self.lines.append(action)

    def answer(self) -> None:
        while self.waiting:
            query = self.waiting.pop()
            if self.away:
                self.outputs.procedures.failed(query.number, StorageUnavailable())
            else:
                self.outputs.procedures.answered(query.number, self.elsewhere.tables.perform(query.effect))
        self.perform_actions()


def numbers(pieces: Pieces) -> list[int]:
    """Of the events, in order."""
    return [int(part.partition(b">")[0]) for part in b"".join(piece for _, piece in pieces).split(b"<")[1:]]


def test_a_kept_page_grows_with_its_log() -> None:
    log = Log()
    log.grow(3)
    for length in (3, 5, 9):
        log.grow(length - log.length)
        pieces = log.read(0, length)
        assert numbers(pieces) == list(range(1, length + 1))
        assert len(pieces) == 1
    assert log.reads == [(0, 3), (3, 2), (5, 4)]
    assert numbers(log.read(0, 4)) == list(range(1, 10)), "all that is there is given without a read"
    assert len(log.reads) == 3


def test_a_grown_page_keeps_its_pieces_short() -> None:
    log = Log(1_000_000)
    for _ in range(10):
        log.grow(1, "x" * (PIECE_BYTES // 4))
        pieces = log.read(0, log.length)
        assert numbers(pieces) == list(range(1, log.length + 1))
        assert [last for last, _ in pieces][-1] == log.length
        assert all(len(piece) <= PIECE_BYTES for _, piece in pieces)


def test_a_list_of_pieces_that_was_given_does_not_change() -> None:
    log = Log()
    log.grow(2)
    given = log.read(0, 2)
    log.grow(2)
    log.read(0, 4)
    assert numbers(given) == [1, 2]


def test_a_page_that_cannot_grow_gives_what_it_has() -> None:
    log = Log()
    log.grow(2)
    log.read(0, 2)
    log.grow(2)
    log.away = True
    assert numbers(log.read(0, 4)) == [1, 2]
    assert log.read(2, 2) == []
    assert len(log.lines) == 2
    log.away = False
    assert numbers(log.read(0, 4)) == [1, 2, 3, 4]


def test_all_who_ask_while_a_page_is_read_share_the_read() -> None:
    log = Log()
    log.grow(4)
    log.held = True
    sockets = [f"socket {number}" for number in range(5)]
    for socket in sockets:
        assert log.ask(0, 4, socket) is None
    assert log.replays == []
    log.answer()
    assert log.replays == sockets
    assert all(numbers(log.ask(0, 4, socket) or []) == [1, 2, 3, 4] for socket in sockets)
    assert len(log.reads) == 1


def test_one_who_asks_for_more_than_is_being_read_gets_it_by_a_second_read() -> None:
    log = Log()
    log.grow(4)
    log.held = True
    assert log.ask(0, 2, "few") is log.ask(0, 4, "many") is None
    log.answer()
    assert numbers(log.ask(0, 2, "few") or []) == [1, 2]
    assert log.ask(0, 4, "many") is None
    log.answer()
    assert numbers(log.ask(0, 4, "many") or []) == [1, 2, 3, 4]
    assert log.reads == [(0, 2), (2, 2)]


def test_a_page_that_cannot_be_read_is_empty_for_each_who_waited_once() -> None:
    log = Log()
    log.grow(1)
    log.held = log.away = True
    for socket in "ab":
        assert log.ask(0, 1, socket) is None
    log.answer()
    assert log.replays == ["a", "b"]
    assert log.ask(0, 1, "a") == log.ask(0, 1, "b") == []
    assert log.pages.nbytes == 0
    log.held = log.away = False
    assert numbers(log.read(0, 1, "c")) == [1]


def test_a_channel_that_is_gone_has_an_empty_page() -> None:
    log = Log()
    log.channel = "gone"
    assert log.read(0, 3) == []


@pytest.mark.parametrize("kept", [0, 2], ids=["first read", "growth"])
def test_a_page_dropped_while_it_is_read_takes_nothing_of_the_other_log(kept: int) -> None:
    log = Log()
    log.grow(2)
    if kept:
        log.read(0, kept)
    log.grow(2)
    log.held = True
    log.ask(0, 4, "socket")
    log.pages.drop_all()
    log.answer()
    assert log.pages.nbytes == 0
    assert log.replays == ["socket"]
    assert log.ask(0, 4, "socket") is None, "it is read again"
    log.answer()
    assert numbers(log.ask(0, 4, "socket") or []) == [1, 2, 3, 4]
    assert log.reads[-1] == (0, 4)


def test_the_pages_of_one_channel_go_alone() -> None:
    log = Log()
    log.grow(1)
    first, other = log.channel, log.elsewhere.channel(log.elsewhere.user())
    log.read(0, 1)
    size = log.pages.nbytes
    log.channel = other
    log.elsewhere.append(other, "<1>")
    log.read(0, 1)
    log.pages.drop_channel(other)
    assert log.pages.nbytes == size
    log.channel = first
    log.read(0, 1)
    assert len(log.reads) == 2


@pytest.mark.parametrize("away", [False, True])
def test_nothing_is_kept_for_a_socket_that_left_while_it_waited(away: bool) -> None:
    log = Log()
    log.grow(2)
    log.held, log.away = True, away
    for socket in ("leaver", "stayer"):
        log.ask(0, 2, socket)
    log.pages.left("leaver")
    log.perform_actions()
    assert log.replays == ["leaver"], "whatever serves it need not wait for the store"
    log.answer()
    assert log.replays == ["leaver", "stayer"]
    assert list(log.pages._unreadable) == (["stayer"] if away else [])
    log.pages.left("stayer")
    assert log.pages._unreadable == {}
    assert log.pages._waiting == {}


def test_who_leaves_takes_the_page_from_nobody() -> None:
    log = Log()
    log.grow(4)
    log.held = True
    for socket in ("leaver", "a", "b"):
        log.ask(0, 4, socket)
    log.pages.left("leaver")
    log.answer()
    assert all(numbers(log.ask(0, 4, socket) or []) == [1, 2, 3, 4] for socket in "ab")
    assert len(log.reads) == 1


def test_the_oldest_pages_go_first_and_the_last_one_stays() -> None:
    log = Log(3_000)
    log.grow(10, "x" * 300)
    for after in (0, 1, 2):
        log.read(after, 1)
    log.read(0, 1)
    log.read(3, 5)
    reads = len(log.reads)
    log.read(3, 5)
    assert len(log.reads) == reads
    log.read(1, 1)
    assert len(log.reads) == reads + 1
    small = Log(10)
    small.grow(1)
    assert numbers(small.read(0, 1)) == [1], "one that is larger than all that is kept"


def test_a_slow_read_is_not_dropped_when_it_has_ended() -> None:
    """It was asked for before the pages that fill what is kept."""
    log = Log(3_000)
    log.grow(10, "x" * 300)
    log.held = True
    assert log.ask(9, 1, "slow") is None
    slow, log.waiting = log.waiting, []
    log.held = False
    for after in range(5):
        log.read(after, 1)
    log.waiting = slow
    log.answer()
    assert numbers(log.ask(9, 1, "slow") or []) == [10]


def test_the_bound_covers_what_small_pages_take() -> None:
    """A page of one event takes several times its frame."""
    log = Log()
    log.grow(200)
    for after in range(200):
        log.read(after, 1)
    full = log.pages.nbytes
    assert 90_000 < full <= 100_000
    log.reads.clear()
    gc.collect()
    tracemalloc.start()
    try:
        log.pages.drop_all()
        assert log.pages.nbytes == 0
        for after in range(200):
            log.read(after, 1)
        gc.collect()
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert log.pages.nbytes == full
    assert 0.5 * full < taken < 1.2 * full
