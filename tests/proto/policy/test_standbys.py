"""Which standby serves, and how long a read waits for it."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openguild_proto.effects import StorageEffect
from openguild_proto.effects.channels import FindChannelAccess, PageBounds
from openguild_proto.effects.standby import may_use_standby
from openguild_proto.policy.standbys import (
    LONGEST_PAUSE_SECS,
    Standbys,
    StandbyState,
    WalPosition,
    compare,
    next_pause,
)


@pytest.mark.parametrize(
    ("primary", "standby", "state"),
    [
        (WalPosition("a:1", 100), WalPosition("a:1", 100), StandbyState.SERVING),
        (WalPosition("a:1", 100), WalPosition("a:1", 99), StandbyState.BEHIND),
        (WalPosition("a:2", 100), WalPosition("a:1", 200), StandbyState.APART),
        (WalPosition(None, 100), WalPosition(None, 200), StandbyState.APART),
        (WalPosition("a:1", 100), WalPosition(None, 200), StandbyState.APART),
    ],
)
def test_a_standby_serves_what_the_primary_had(primary: WalPosition, standby: WalPosition, state: StandbyState) -> None:
    assert compare(primary, standby) is state


@given(st.floats(0.0001, 10))
def test_pauses_grow_and_end_with_the_limit(limit: float) -> None:
    waited = pause = 0.0
    for turn in itertools.count():
        longer = next_pause(waited, pause, limit)
        if longer is None:
            break
        assert 0 < longer <= LONGEST_PAUSE_SECS
        assert longer >= min(pause, limit - waited)
        waited, pause = waited + longer, longer
        assert turn < limit / LONGEST_PAUSE_SECS + 10
    assert waited == pytest.approx(limit)


def test_standbys_that_serve_take_turns() -> None:
    standbys = Standbys(3)
    assert standbys.choose() is None
    assert standbys.found(1, StandbyState.BEHIND), "the first look is news, whatever it finds"
    assert standbys.found(0, StandbyState.SERVING)
    assert not standbys.found(0, StandbyState.SERVING)
    standbys.found(2, StandbyState.SERVING)
    assert [standbys.choose() for _ in range(4)] == [0, 2, 0, 2]
    assert standbys.found(0, StandbyState.BEHIND)
    assert [standbys.choose() for _ in range(2)] == [2, 2]


def test_a_page_may_come_from_a_standby_and_the_access_of_a_post_not() -> None:
    assert may_use_standby(FindChannelAccess(channel_id="c", user_id="u", page=PageBounds(5)))
    assert not may_use_standby(FindChannelAccess(channel_id="c", user_id="u"))


def test_no_effect_that_changes_may_use_a_standby() -> None:
    """An effect with an author, or with the time of the change, writes."""
    for effect in _all(StorageEffect):
        if effect.on_standby:
            assert not {"author", "now_ms"} & set(effect.__struct_fields__), effect


def _all(kind: type[StorageEffect[object]]) -> list[type[StorageEffect[object]]]:
    return [each for sub in kind.__subclasses__() for each in (sub, *_all(sub))]
