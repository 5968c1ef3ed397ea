"""Equal texts are one object, and not for good."""

from __future__ import annotations

from openguild_proto.shared_texts import MAX_SHARED, shared


def test_equal_texts_are_one_object() -> None:
    assert shared("".join(("203.0.", "113.7"))) is shared("".join(("203.", "0.113.7")))


def test_no_more_are_kept_than_the_bound() -> None:
    for number in range(MAX_SHARED + 10):
        shared(f"2001:db8::{number:x}")
    assert shared.cache_info().currsize == MAX_SHARED
