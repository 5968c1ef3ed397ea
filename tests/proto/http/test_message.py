"""What a request says of itself."""

from __future__ import annotations

import pytest

from openguild_proto.http.message import METHODS, Request


@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_known_method_is_shown(method: str) -> None:
    assert Request(method, "/", "", ()).shown_method == method


@pytest.mark.parametrize("method", ["get", "token", "M" * 32, ""])
def test_any_other_word_of_the_client_is_not(method: str) -> None:
    assert Request(method, "/", "", ()).shown_method == "other"
