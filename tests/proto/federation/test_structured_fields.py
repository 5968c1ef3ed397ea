"""Dictionaries of structured fields: what is read is written the same."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openguild_proto.federation.faults import SignatureFault
from openguild_proto.federation.structured_fields import InnerList, Item, Token, parse_dictionary

keys = st.from_regex(r"[a-z*][a-z0-9_.*-]{0,8}", fullmatch=True)
bare = st.one_of(
    st.integers(-(10**15) + 1, 10**15 - 1),
    st.booleans(),
    st.binary(max_size=20),
    st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=20),
    st.from_regex(r"[A-Za-z*][A-Za-z0-9!#$%&'*+.^_`|~:/-]{0,8}", fullmatch=True).map(Token),
)
parameters = st.dictionaries(keys, bare, max_size=3)
items = st.builds(Item, bare, parameters)
lists = st.builds(InnerList, st.lists(items, max_size=4).map(tuple), parameters)


@given(st.dictionaries(keys, st.one_of(items, lists), max_size=4))
def test_what_is_written_is_read_the_same(dictionary: dict[str, Any]) -> None:
    text = ", ".join(f"{name}={member}" for name, member in dictionary.items())
    read = parse_dictionary(text)
    assert {name: str(member) for name, member in read.items()} == {
        name: str(member) for name, member in dictionary.items()
    }
    assert list(read) == list(dictionary)


@given(st.text(alphabet='ab=(")@:;,\t \\1.-?*/', max_size=60))
def test_any_text_is_a_dictionary_or_a_fault(text: str) -> None:
    try:
        read = parse_dictionary(text)
    except SignatureFault:
        return
    written = ", ".join(f"{name}={member}" for name, member in read.items())
    assert parse_dictionary(written) == read


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("", []),
        ("a", ["a=?1"]),
        ("a;x;y=1", ["a=?1;x;y=1"]),
        ("a=1 ,\tb=2", ["a=1", "b=2"]),
        ('a=( "x"  "y" );z', ['a=("x" "y");z']),
        ('a="q\\"\\\\";  t=tok/en', ['a="q\\"\\\\";t=tok/en']),
    ],
)
def test_forms_that_mean_the_same(text: str, written: list[str]) -> None:
    assert [f"{name}={member}" for name, member in parse_dictionary(text).items()] == written


@pytest.mark.parametrize(
    "text",
    [
        "A=1", "a=", "a=1,", ",a=1", "a=1 b=2", "a=1.0", "a=1234567890123456", 'a="x', 'a="\x7f"', 'a="\\n"', "a=:=A:", "a=:AAA:",
        "a=(", 'a=("x""y")', "a=(1", "a=1, a=2", "a=1;b=1;b=2", "a=?2", "a=@1", "a=--1", ", ".join(f"a{n}" for n in range(17)),
        f"a=({' '.join('1' * 17)})", "a" + "".join(f";p{n}" for n in range(17)), "a=\u00e9",
    ],
)  # fmt: skip
def test_what_is_no_dictionary(text: str) -> None:
    with pytest.raises(SignatureFault):
        parse_dictionary(text)
