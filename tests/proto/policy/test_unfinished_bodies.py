"""Request bodies that have come in part are bounded in all: the one that began first goes first."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from openguild_proto.policy.unfinished_bodies import UnfinishedBodies


def test_the_one_that_began_first_goes_first() -> None:
    bodies: UnfinishedBodies[str] = UnfinishedBodies(100)
    assert [bodies.received(peer, 30) for peer in "abca"] == [[], [], [], ["a"]]
    bodies.end("a")
    assert bodies.received("d", 40) == []
    assert bodies.received("d", 40) == ["b", "c"]
    assert bodies.total_bytes == 80
    assert bodies.received("d", 40) == ["d"], "one alone is bounded too"
    assert bodies.total_bytes == 0


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5), st.integers(0, 100))))
def test_the_total_is_what_is_kept(steps: list[tuple[bool, int, int]]) -> None:
    bodies: UnfinishedBodies[int] = UnfinishedBodies(150)
    kept: dict[int, int] = {}
    for comes, peer, nbytes in steps:
        if comes:
            kept[peer] = kept.get(peer, 0) + nbytes
            for left in bodies.received(peer, nbytes):
                del kept[left]
        else:
            kept.pop(peer, None)
            bodies.end(peer)
        assert bodies.total_bytes == sum(kept.values()) <= 150
