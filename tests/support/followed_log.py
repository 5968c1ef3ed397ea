"""A log, its follower and its store, driven by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from openguild_proto.effects import Effect, StorageUnavailable
from openguild_proto.effects.replica import ReadControlHead, ReadControls
from openguild_proto.log.follower import Item, LogFollower
from openguild_proto.procedures import Procedure, Procedures

PAGE = 3


class FollowedLog:
    """A log, its follower, and the follower's source. Reads wait for `answer` or `fail`. An item is (life of the log, sequence)."""

    def __init__(self, head: int | None = 0) -> None:
        self.now = 0.0
        self.defects: list[Exception] = []
        self.procedures = Procedures(lambda what, failure: self.defects.append(failure))
        self.life = 0
        self.items: list[tuple[int, int]] = []
        self.first = 1  # earlier items are pruned
        self.released: list[tuple[int, int]] = []
        self.room = self.followed = True
        self.early = False  # the store is read when it is asked, and not when it answers
        self.skips = False  # the source skips pruned items
        self.reads: list[tuple[int, Effect[Any], Any]] = []
        self.asked = self.read_items = 0
        self.follower: LogFollower[tuple[int, int]] = LogFollower(self, self.procedures, head)

    # --- source --------------------------------------------------------------------------------------

    def read(self, after: int, before: int) -> Procedure[Sequence[Item[tuple[int, int]]]]:
        self.asked += 1
        return (yield from ReadControls(after, min(PAGE, before - after - 1)))

    def release(self, sequence: int, item: tuple[int, int]) -> None:
        assert item == (self.life, sequence)
        self.released.append(item)

    def has_room(self) -> bool:
        return self.room

    def is_followed(self) -> bool:
        return self.followed

    def truncated(self, first: int | None) -> int | None:
        if not self.skips:
            return None
        return first - 1 if first is not None else self.follower.seen

    def counted(self, items: int) -> None:
        self.read_items += items

    # --- inputs --------------------------------------------------------------------------------------

    def append(self, count: int = 1) -> list[tuple[int, tuple[int, int]]]:
        begin = len(self.items)
        self.items += [(self.life, number + 1) for number in range(begin, begin + count)]
        return [(number + 1, self.items[number]) for number in range(begin, begin + count)]

    def go_back(self, head: int) -> None:
        """Lose the commits after `head`, and restart the follower, as its owner does when it notices."""
        self.life += 1
        self.items = [(self.life, number + 1) for number in range(head)]
        self.follower.restart(head)
        self.released = list(self.items)

    def check(self) -> None:
        """Read the head, as an owner does."""
        self.procedures.start(self._check(), "a check")

    def _check(self) -> Procedure[None]:
        place = self.follower.place
        head = yield from ReadControlHead()
        self.follower.tail_read(place, head)

    def sleep(self, secs: float) -> None:
        until = self.now + secs
        while (due := self.procedures.next_deadline()) is not None and due <= until:
            self.now = max(self.now, due)
            self.procedures.handle_deadline(self.now)
        self.now = self.procedures.now = until
        self._take()

    def _take(self) -> None:
        while (query := self.procedures.take_query()) is not None:
            number, effect = query
            self.reads.append((number, effect, self._result(effect) if self.early else None))

    def _result(self, effect: Effect[Any]) -> Any:
        if not isinstance(effect, ReadControls):
            return len(self.items)
        begin = max(effect.after, self.first - 1)
        return [Item(number, item) for number, item in enumerate(self.items, 1)][begin : begin + effect.limit]

    def answer(self, which: int = 0) -> None:
        number, effect, result = self.reads.pop(which)
        self.procedures.answered(number, result if self.early else self._result(effect))
        self._take()

    def fail(self, which: int = 0) -> None:
        self.procedures.failed(self.reads.pop(which)[0], StorageUnavailable())
        self._take()

    def settle(self) -> None:
        """Let time pass and answer all reads until there are none."""
        self._take()
        while self.reads or self.procedures.next_deadline() is not None:
            while self.reads:
                self.answer()
            self.sleep(1)

    @property
    def sequences(self) -> list[int]:
        return [sequence for _, sequence in self.released]
