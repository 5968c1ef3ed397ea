"""Codes and links of invites."""

from __future__ import annotations

import pytest

from openguild_proto.client import invite_code


@pytest.mark.parametrize(
    ("invite", "code"),
    [
        ("Ab_-9", "Ab_-9"), (" Ab9\n", "Ab9"), ("Ab9@north.test", "Ab9@north.test"), ("", ""),
        ("http://127.0.0.1:8081/#invite=Ab_-9", "Ab_-9"),
        ("https://chat.example.org/page/?x=1#invite=Ab9@north.test", "Ab9@north.test"),
        ("https://chat.example.org/?invite=Ab9&x=1", "Ab9"),
    ],
)  # fmt: skip
def test_the_code_of_an_invite(invite: str, code: str) -> None:
    assert invite_code(invite) == code
