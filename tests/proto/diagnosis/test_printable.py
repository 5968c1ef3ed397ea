"""What a terminal gets of texts that peers have chosen."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openguild_proto.diagnosis.printable import printable


@pytest.mark.parametrize("sign", ["\x1b", "\x9b", "\x7f", "\n", "\r", "\u202e", "\u2028", "\ufeff", "\U000e0001"])
def test_what_a_terminal_would_act_on_is_escaped(sign: str) -> None:
    shown = printable(f"a{sign}b")
    assert shown == f"a{json.dumps(sign)[1:-1]}b"
    assert shown.isprintable()


def test_what_prints_stays_as_it_is() -> None:
    text = "Grüße, 你好 \N{THUMBS UP SIGN}"
    assert printable(text) == text


@given(st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_json_keeps_its_meaning(value: object) -> None:
    shown = printable(json.dumps(value, indent=2, ensure_ascii=False), kept="\n")
    assert json.loads(shown) == value
    assert shown.replace("\n", "").isprintable()
