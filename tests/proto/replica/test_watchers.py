"""Who is notified of what, and when a channel's feed may be let go."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from openguild_proto.replica.watchers import Watchers


def test_first_watcher_holds_and_last_releases() -> None:
    watchers = Watchers()
    watchers.retain("alice")
    assert watchers.update("alice", {"g"}, {"c1", "c2"}) == ({"c1", "c2"}, set())
    watchers.retain("bob")
    assert watchers.update("bob", {"g"}, {"c1"}) == (set(), set())
    assert watchers.of_channel("c1") == {"alice", "bob"}
    assert watchers.of_guild("g") == {"alice", "bob"}
    assert watchers.release("alice") == {"c2"}
    assert watchers.of_guild("g") == {"bob"}
    assert watchers.release("bob") == {"c1"}
    assert not watchers.is_watching("bob")


def test_second_socket_of_a_user_keeps_the_interest() -> None:
    watchers = Watchers()
    watchers.retain("alice")
    watchers.update("alice", {"g"}, {"c"})
    watchers.retain("alice")
    assert watchers.release("alice") == set()
    assert watchers.of_channel("c") == {"alice"}
    assert watchers.release("alice") == {"c"}


def test_a_deleted_channel_is_dropped_for_everybody() -> None:
    watchers = Watchers()
    watchers.retain("alice")
    watchers.update("alice", {"g"}, {"c", "d"})
    assert watchers.drop_channel("c")
    assert not watchers.drop_channel("c")
    assert watchers.channels_of("alice") == {"d"}
    assert watchers.release("alice") == {"d"}


USERS = st.sampled_from(["a", "b", "c"])
CHANNELS = st.frozensets(st.sampled_from(["1", "2", "3", "4"]))


@given(st.lists(st.tuples(USERS, CHANNELS)))
def test_holds_and_releases_balance(steps: list[tuple[str, frozenset[str]]]) -> None:
    watchers = Watchers()
    held: set[str] = set()
    seen: set[str] = set()
    for user, channels in steps:
        if user not in seen:
            seen.add(user)
            watchers.retain(user)
        new, gone = watchers.update(user, (), channels)
        assert new.isdisjoint(held)
        assert gone <= held
        held = (held | new) - gone
    for user in seen:
        gone = watchers.release(user)
        assert gone <= held
        held -= gone
    assert held == set()
