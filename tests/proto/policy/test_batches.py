"""First come, first served, in batches, within bounds."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from openguild_proto.limits import MAX_BATCH_ITEMS
from openguild_proto.policy.batches import ArrivalQueue


@given(st.lists(st.one_of(st.integers(1, 400), st.none()), max_size=30))
def test_each_comes_out_once_in_order_and_within_bounds(steps: list[int | None]) -> None:
    """A number offers so many; None takes a batch."""
    queue: ArrivalQueue[int, str] = ArrivalQueue(max_items=1_000, item_bytes=10)
    admitted: list[int] = []
    taken: list[int] = []
    number = 0
    for step in steps:
        if step is None:
            batch = queue.take()
            assert len(batch) == min(MAX_BATCH_ITEMS, len(admitted) - len(taken))
            assert all(waiting.ticket == f"t{waiting.item}" for waiting in batch)
            taken += [waiting.item for waiting in batch]
        for _ in range(step or 0):
            number += 1
            fits = len(queue) < 1_000
            assert queue.offer(number, f"t{number}", 0.0) is fits
            if fits:
                admitted.append(number)
        assert len(queue) == len(admitted) - len(taken) <= 1_000
        assert queue.bytes == 10 * len(queue)
    taken += [waiting.item for waiting in queue.clear()]
    assert taken == admitted
    assert (len(queue), queue.bytes, queue.take()) == (0, 0, [])
