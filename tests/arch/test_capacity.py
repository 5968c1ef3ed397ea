"""The capacity model: how its results grow with users and assumptions, and that a replica does no more work in a large cluster."""

from __future__ import annotations

import itertools

import msgspec
import pytest

from benchmarks.capacity.__main__ import changed
from benchmarks.capacity.many_replicas import POSTS_PER_SEC, STREAMS, measure
from benchmarks.capacity.model import Machines, Profile, needs
from benchmarks.capacity.units import Cost, Units

UNITS = Units(
    post=Cost(500.0, 300.0, 10.0), page=Cost(400.0, 200.0), folded=Cost(600.0, 400.0),
    sync=Cost(900.0, 900.0), unread=Cost(400.0, 300.0),
    connect=Cost(500.0, 200.0), event=Cost(150.0, 0.0, 20.0), idle=Cost(5_000.0, 5_000.0), login_us=40_000.0, delivery_us=7.0,
    connection_bytes=3_400.0, subscription_bytes=150.0, event_bytes=1_000.0, wal_bytes=2_000.0,
)  # fmt: skip


def test_more_users_need_more_and_few_fit_one_cluster() -> None:
    found = [needs(users, UNITS, Profile(), Machines()) for users in (10_000, 1_000_000, 100_000_000)]
    assert [each.clusters for each in found[:2]] == [1, 1]
    assert found[2].clusters > 1
    for fewer, more in itertools.pairwise(found):
        for name in ("posts", "deliveries", "server_cores", "replicas", "memory_gib", "disk_tib", "wal_mib", "dollars"):
            assert getattr(more, name) > getattr(fewer, name), name


def test_posts_and_deliveries_follow_from_the_profile() -> None:
    found = needs(36_000, UNITS, Profile(online=0.5, posts_an_hour=2.0, readers=30.0), Machines())
    assert (found.online, found.posts, found.deliveries) == (18_000.0, 10.0, 300.0)
    assert found.wal_mib == pytest.approx(10 * 2_000 / 2**20)


def test_a_primary_that_is_full_makes_another_node() -> None:
    one = needs(1_000_000, UNITS, Profile(), Machines(database_cores=32))
    small = needs(1_000_000, UNITS, Profile(posts_an_hour=400.0), Machines(database_cores=2))
    assert one.nodes == 1
    assert small.nodes > 1


def test_a_replica_does_no_more_among_many() -> None:
    """Counts messages of logs and queries. Messages for all replicas grow: presence adds one in ten seconds per replica."""
    few, many = measure(6), measure(18)
    for counts in (few, many):
        assert counts.delivered == pytest.approx(STREAMS * POSTS_PER_SEC, rel=0.2)
    assert many.messages <= 1.15 * few.messages
    assert many.queries <= 1.1 * few.queries
    assert many.broadcasts <= 0.11 * 18


@pytest.mark.parametrize("wrong", ["readers=nan", "readers=many", "busy=0", "online=2", "sockets=0", "max_replicas=1"])
def test_an_assumption_beyond_its_bounds_is_refused(wrong: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=wrong.partition("=")[0]):
        changed(Machines(), [wrong])
        changed(Profile(), [wrong])
