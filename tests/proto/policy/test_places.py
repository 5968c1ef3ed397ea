"""Places for what is under way at the same time."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from openguild_proto.policy.places import Places


def test_a_key_has_few_places_and_leaves_others_theirs() -> None:
    places = Places(of_key=2, in_all=3)
    with ExitStack() as taken:
        assert [taken.enter_context(places.place("a")) for _ in range(3)] == [True, True, False]
        assert [taken.enter_context(places.place("b")) for _ in range(2)] == [True, False]
    with places.place("b") as is_free:
        assert is_free


def test_a_place_is_given_back_when_its_work_fails() -> None:
    places = Places(of_key=1, in_all=1)
    with pytest.raises(ValueError, match="it fails"), places.place("a"):
        raise ValueError("it fails")
    with places.place("a") as is_free:
        assert is_free
