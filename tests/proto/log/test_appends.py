"""Turns of appends: each is taken once, channels in turn and in order, within bounds, no two of one name in a batch."""

from __future__ import annotations

from collections import Counter

import hypothesis.strategies as st
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from openguild_proto.effects.channels import AppendEvent
from openguild_proto.limits import (
    APPEND_OVERHEAD_BYTES,
    BLOCKED_SECS,
    MAX_BATCH_BYTES,
    MAX_BATCH_ITEMS,
    MAX_BLOCKED,
    MAX_QUEUE_BYTES,
    MAX_QUEUE_EVENTS,
)
from openguild_proto.log.appends import AppendQueue
from openguild_proto.records import Author

CHANNELS = ("a", "b", "c", "d")
AUTHORS = ("", "u", "v")
NOW = 1_000.0


def append(
    channel: str, event_id: str, nonce: str | None = None, sender: str = "alice", size: int = 10, author: str = ""
) -> AppendEvent:
    return AppendEvent(
        author=Author(author) if author else None, channel_id=channel, sender_id=sender, event_id=event_id, event_type="message",
        wire=b"x" * size, nonce=nonce, fingerprint=bytes(32), now_ms=0,
    )  # fmt: skip


def author_of(event: AppendEvent) -> str:
    return event.author.user_id if event.author is not None else ""


def tickets(batch: list[object]) -> list[object]:
    return [waiting.ticket for waiting in batch]  # type: ignore[attr-defined]  # whatever the queue was given


def fill(queue: AppendQueue[int], channel: str, size: int = 10) -> int:
    """How many it takes."""
    admitted = 0
    while queue.offer(append(channel, f"{channel}{admitted}", size=size), admitted, NOW):
        admitted += 1
    return admitted


class Turns(RuleBasedStateMachine):
    """Anything is offered, taken, blocked and stored, against a plain list of what waits."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: AppendQueue[int] = AppendQueue()
        self.now = NOW
        self.number = 0
        self.waiting: dict[str, list[tuple[int, AppendEvent]]] = {channel: [] for channel in CHANNELS}
        self.out: Counter[int] = Counter()
        self.refused_until: dict[str, float] = {}
        self.suspects: set[str] = set()
        self.batches_without: Counter[str] = Counter()  # batches in a row in which a waiting channel had no turn

    @rule(
        channel=st.sampled_from(CHANNELS),
        sender=st.sampled_from(("alice", "bob")),
        author=st.sampled_from(AUTHORS),
        nonce=st.sampled_from((None, None, "x", "y")),
        same_id=st.booleans(),
        size=st.sampled_from((0, 1_000, MAX_BATCH_BYTES // 2)),
        count=st.integers(1, 300),
    )
    def offer(
        self, channel: str, sender: str, author: str, nonce: str | None, same_id: bool, size: int, count: int
    ) -> None:
        for _ in range(count if size == 0 else 1):
            self.number += 1
            event = append(channel, f"same in {channel}" if same_id else f"e{self.number}", nonce, sender, size, author)
            weight = size + APPEND_OVERHEAD_BYTES
            fits = (
                self.now >= max(self.refused_until.get(channel, 0.0), self.refused_until.get(author, 0.0))
                and len(self.queue) < MAX_QUEUE_EVENTS
                and self.queue.bytes + weight <= MAX_QUEUE_BYTES
                and len(self.waiting[channel]) < MAX_QUEUE_EVENTS // 2
            )
            assert self.queue.offer(event, self.number, self.now) is fits
            if fits:
                self.waiting[channel].append((self.number, event))
            if same_id:
                return  # each costs a batch of its own

    @precondition(lambda self: len(self.queue))
    @rule()
    def take(self) -> None:
        waited = {channel for channel in CHANNELS if self.waiting[channel]}
        batch = self.queue.take()
        assert 0 < len(batch) <= MAX_BATCH_ITEMS
        assert sum(waiting.size for waiting in batch[:-1]) < MAX_BATCH_BYTES
        names = Counter(
            name
            for waiting in batch
            for name in (
                waiting.item.event_id,
                waiting.item.nonce and (waiting.item.channel_id, waiting.item.sender_id, waiting.item.nonce),
            )
            if name is not None
        )
        assert max(names.values()) == 1, "no two of one name"
        taken = Counter(waiting.item.channel_id for waiting in batch)
        for channel, count in taken.items():
            here = [waiting for waiting in batch if waiting.item.channel_id == channel]
            line, self.waiting[channel] = self.waiting[channel][:count], self.waiting[channel][count:]
            assert [(waiting.ticket, waiting.item) for waiting in here] == line, "in order"
        self.out.update(waiting.ticket for waiting in batch)
        assert not (self.suspects & set(taken)) or len(taken) == 1, "a suspect is tried alone"
        authors = {author_of(waiting.item) for waiting in batch}
        assert not (self.suspects & authors) or len(batch) == 1, "a suspect is tried alone"
        for channel in waited:
            self.batches_without[channel] = 0 if channel in taken else self.batches_without[channel] + 1
            # Each channel before it in the round holds it back for one batch at most: by its bytes, or as a suspect.
            assert self.batches_without[channel] <= 2 * len(CHANNELS), "nobody waits for ever"

    @rule(channel=st.sampled_from(CHANNELS))
    def block(self, channel: str) -> None:
        gone = self.queue.block_channel(channel, self.now)
        assert [waiting.ticket for waiting in gone] == [number for number, _ in self.waiting[channel]]
        self.out.update(waiting.ticket for waiting in gone)
        self.waiting[channel] = []
        self.batches_without[channel] = 0
        self.refused_until[channel] = self.now + BLOCKED_SECS
        self.suspects.add(channel)

    @rule(author=st.sampled_from(AUTHORS[1:]))
    def block_author(self, author: str) -> None:
        gone = self.queue.block_author(author, self.now)
        theirs = [number for line in self.waiting.values() for number, event in line if author_of(event) == author]
        assert sorted(waiting.ticket for waiting in gone) == sorted(theirs)
        self.out.update(theirs)
        for channel, line in self.waiting.items():
            self.waiting[channel] = [(number, event) for number, event in line if author_of(event) != author]
        self.batches_without.clear()
        self.refused_until[author] = self.now + BLOCKED_SECS
        self.suspects.add(author)

    @rule(channel=st.sampled_from(CHANNELS), author=st.sampled_from(AUTHORS))
    def stored(self, channel: str, author: str) -> None:
        self.queue.stored(append(channel, "stored", author=author))
        for name in (channel, author):
            self.refused_until.pop(name, None)
            self.suspects.discard(name)

    @rule(secs=st.sampled_from((0.0, BLOCKED_SECS / 2, BLOCKED_SECS)))
    def wait(self, secs: float) -> None:
        self.now += secs

    @rule()
    def clear(self) -> None:
        gone = self.queue.clear()
        assert sorted(waiting.ticket for waiting in gone) == sorted(
            number for line in self.waiting.values() for number, _ in line
        )
        self.out.update(waiting.ticket for waiting in gone)
        self.waiting = {channel: [] for channel in CHANNELS}
        self.batches_without.clear()

    @invariant()
    def it_counts(self) -> None:
        lines = [event for line in self.waiting.values() for _, event in line]
        assert len(self.queue) == len(lines) <= MAX_QUEUE_EVENTS
        assert self.queue.bytes == sum(len(event.wire) + APPEND_OVERHEAD_BYTES for event in lines) <= MAX_QUEUE_BYTES
        assert not self.out or max(self.out.values()) == 1, "each comes out once"
        channels = {channel for channel in CHANNELS if self.queue.suspects(append(channel, "first"))}
        authors = {author for author in AUTHORS if self.queue.suspects(append("another", "first", author=author))}
        assert channels | authors == self.suspects


TestTurns = Turns.TestCase
TestTurns.settings = hypothesis_settings(max_examples=60, stateful_step_count=40, deadline=None)


@given(st.lists(st.tuples(st.sampled_from(CHANNELS), st.sampled_from((None, "x"))), max_size=700))
def test_every_append_is_taken_once_and_in_order(offers: list[tuple[str, str | None]]) -> None:
    queue: AppendQueue[int] = AppendQueue()
    for number, (channel, nonce) in enumerate(offers):
        assert queue.offer(append(channel, f"e{number}", nonce, f"s{number % 300}"), number, NOW)
    taken: list[int] = []
    while queue:
        taken += [waiting.ticket for waiting in queue.take()]
    for channel in CHANNELS:
        mine = [number for number, (other, _) in enumerate(offers) if other == channel]
        assert [number for number in taken if offers[number][0] == channel] == mine
    assert len(taken) == len(offers)
    assert queue.bytes == 0


def test_equal_nonces_never_share_a_batch() -> None:
    queue: AppendQueue[str] = AppendQueue()
    for place, nonce in enumerate(("a", "a", "b", "a", None, None)):
        assert queue.offer(append("c", f"e{place}", nonce), f"{nonce}{place}", NOW)
    assert [tickets(queue.take()) for _ in range(3)] == [["a0"], ["a1", "b2"], ["a3", "None4", "None5"]]
    queue.offer(append("c", "e", "n", "alice"), "alice", NOW)
    queue.offer(append("c", "f", "n", "bob"), "bob", NOW)
    queue.offer(append("d", "g", "n", "alice"), "elsewhere", NOW)
    assert len(queue.take()) == 3, "a nonce is the sender's, in one channel"


def test_equal_event_ids_never_share_a_batch() -> None:
    queue: AppendQueue[int] = AppendQueue()
    queue.offer(append("a", "same"), 1, NOW)
    queue.offer(append("b", "same"), 2, NOW)
    queue.offer(append("c", "other"), 3, NOW)
    assert [tickets(queue.take()) for _ in range(2)] == [[1, 3], [2]]


def test_channels_take_turns() -> None:
    queue: AppendQueue[str] = AppendQueue()
    for number in range(1_000):
        queue.offer(append("busy", f"e{number}"), f"busy {number}", NOW)
    queue.offer(append("quiet", "q"), "quiet", NOW)
    assert tickets(queue.take())[:3] == ["busy 0", "quiet", "busy 1"]


def test_a_batch_is_bounded_in_bytes() -> None:
    queue: AppendQueue[int] = AppendQueue()
    assert fill(queue, "c", size=MAX_BATCH_BYTES) == MAX_QUEUE_BYTES // (MAX_BATCH_BYTES + APPEND_OVERHEAD_BYTES)
    assert tickets(queue.take()) == [0], "one at least"


def test_the_queue_is_bounded() -> None:
    queue: AppendQueue[int] = AppendQueue()
    assert fill(queue, "c") == MAX_QUEUE_EVENTS // 2, "one channel leaves room for the others"
    assert fill(queue, "d") == MAX_QUEUE_EVENTS // 2
    queue.take()
    assert fill(queue, "e") == MAX_BATCH_ITEMS, "what was taken leaves room"
    assert fill(AppendQueue(), "c", size=64 * 1024) == MAX_QUEUE_BYTES // (64 * 1024 + APPEND_OVERHEAD_BYTES)


def test_queues_that_share_divide_the_bounds() -> None:
    queue: AppendQueue[int] = AppendQueue(share=2)
    assert sum(fill(queue, channel) for channel in CHANNELS) == MAX_QUEUE_EVENTS // 2


def test_a_blocked_channel_is_refused_and_no_other() -> None:
    queue: AppendQueue[int] = AppendQueue()
    queue.offer(append("blocked", "1"), 1, NOW)
    queue.offer(append("free", "2"), 2, NOW)
    assert tickets(queue.block_channel("blocked", NOW)) == [1]
    assert not queue.offer(append("blocked", "3"), 3, NOW + BLOCKED_SECS - 0.01)
    assert queue.offer(append("free", "4"), 4, NOW)
    assert queue.offer(append("blocked", "5"), 5, NOW + BLOCKED_SECS), "for a moment only"
    queue.block_channel("blocked", NOW + 5)
    queue.stored(append("blocked", "5"))
    assert queue.offer(append("blocked", "6"), 6, NOW + 5)


def test_a_suspect_channel_is_tried_alone_until_it_has_stored() -> None:
    queue: AppendQueue[int] = AppendQueue(blocked_secs=0.0)

    def batches() -> list[list[str]]:
        for number, channel in enumerate(("a", "suspect", "b", "suspect", "c")):
            queue.offer(append(channel, f"e{number}"), number, NOW)
        found = []
        while queue:
            found.append(sorted(waiting.item.channel_id for waiting in queue.take()))
        return found

    queue.block_channel("suspect", NOW)
    assert batches() == [["a"], ["suspect", "suspect"], ["b", "c"]]
    queue.stored(append("suspect", "e1"))
    assert batches() == [["a", "b", "c", "suspect", "suspect"]]


@pytest.mark.parametrize("blocked", [MAX_BLOCKED, 2 * MAX_BLOCKED])
def test_what_is_remembered_of_blocked_channels_is_bounded(blocked: int) -> None:
    queue: AppendQueue[int] = AppendQueue()
    for number in range(blocked):
        queue.block_channel(f"c{number}", NOW)
    remembered = [number for number in range(blocked) if queue.suspects(append(f"c{number}", "first"))]
    assert remembered == list(range(blocked - MAX_BLOCKED, blocked)), "the newest"


def test_a_blocked_author_is_refused_and_nobody_else() -> None:
    queue: AppendQueue[int] = AppendQueue()
    for number, (channel, author) in enumerate((("a", "held"), ("a", "free"), ("b", "held"), ("c", ""), ("a", "held"))):
        assert queue.offer(append(channel, f"e{number}", author=author), number, NOW)
    assert sorted(tickets(queue.block_author("held", NOW))) == [0, 2, 4]
    assert not queue.offer(append("c", "e5", author="held"), 5, NOW + BLOCKED_SECS - 0.01)
    assert queue.offer(append("a", "e6", author="free"), 6, NOW)
    assert sorted(tickets(queue.take())) == [1, 3, 6]
    assert (len(queue), queue.bytes) == (0, 0)
    assert queue.offer(append("c", "e7", author="held"), 7, NOW + BLOCKED_SECS), "for a moment only"


def test_a_suspect_author_is_tried_alone_until_one_append_is_stored() -> None:
    """In their channel the order stays; other channels do not wait behind more than one of theirs."""
    queue: AppendQueue[int] = AppendQueue(blocked_secs=0.0)

    def batches() -> list[list[int]]:
        offers = (("a", "free"), ("a", "held"), ("a", "free"), ("b", "held"), ("b", "held"), ("c", "free"))
        for number, (channel, author) in enumerate(offers):
            queue.offer(append(channel, f"e{number}", author=author), number, NOW)
        found = []
        while queue:
            found.append(tickets(queue.take()))
        return found

    queue.block_author("held", NOW)
    found = batches()
    assert [batch for batch in found if {1, 3, 4} & set(batch)] == [[3], [1], [4]]
    assert sorted(number for batch in found for number in batch) == list(range(6))
    assert [number for batch in found for number in batch if number in {0, 1, 2}] == [0, 1, 2]
    queue.stored(append("b", "e4", author="held"))
    assert len(batches()) == 1
