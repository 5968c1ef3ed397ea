"""What a text and a query have in common, in many scripts (PROTOCOL 7.11)."""

from __future__ import annotations

import time

import hypothesis.strategies as st
import pytest
from hypothesis import given

from openguild_proto.limits import (
    MAX_COMPARED_CHARS,
    MAX_EXCERPT_CHARS,
    MAX_MESSAGE_CHARS,
    MAX_TERM_CHARS,
    MAX_TERM_PLACES,
    MAX_TEXT_PLACES,
)
from openguild_proto.policy.search import Part, excerpt, has_link, matches, normalise, parse_phrases, terms_of


def finds(query: str, text: str) -> bool:
    phrases = parse_phrases(query)
    assert phrases, "a query of nothing"
    return matches(terms_of(text), phrases)


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("tea", "a cup of TEA, please"),
        ("please tea", "a cup of tea, please"),
        ("STRASSE", "Die Straße"),
        ("ﬁne", "fine"),  # NFKC
        ("１２", "12"),
        ("e\u0301t\u00e9", "\u00e9te\u0301"),  # composed and not
        ("ΣΊΣΥΦΟΣ", "σίσυφος"),
        ("привет", "Привет, мир"),
        ("سلام", "سَلَامٌ عليكم"),  # without vowel marks
        ("سلام", "ســلام"),  # stretched
        ("שלום", "שָׁלוֹם"),
        ("e-mail", "my e-mail"),
        ("don't", "I don't"),
        ("3.14", "pi is 3.14"),
        ("snake_case", "a snake_case name"),
        ("東京", "私は東京都に住む"),
        ("京", "東京"),
        ("京都", "東京都"),
        ("都", "東京都に"),
        ("がある", "か\u3099ある"),
        ("ｶﾞ", "ガ"),
        ("한국", "한국어를 배워요"),
        ("국어", "한국어를"),
        ("ไทย", "ภาษาไทยง่าย"),
        ("東京tower", "the 東京Tower"),
        ("👍", "fine 👍🏽"),
        ("❤", "❤\ufe0f"),
        ("👩", "👩\u200d🚀"),
        ("🇩🇪", "from 🇩🇪"),
        ("co\u00adop", "coop"),
        ("w" * 100, "a " + "w" * 100),
        ("mess", "a message"),
        ("of mess", "a lot of messages"),
        ('"cup of tea"', "a cup of tea"),
        ("\u201ccup of tea\u201d", "a cup of tea"),
        ('"cup of', "a cup of tea"),
    ],
)
def test_found(query: str, text: str) -> None:
    assert finds(query, text)


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("tea", "steam"),
        ("te", "tea"),  # too short to be a beginning
        ('"mess"', "a message"),
        ("mess age", "messages only"),
        ("tea cup", "tea"),
        ('"tea cup"', "a cup of tea"),
        ("e-mail", "mail e"),
        ("京東", "東京"),
        ("東都", "東京都"),
        ("東京tower", "東京 a tower"),
        ("é", "e"),
        ("👎", "👍"),
    ],
)
def test_not_found(query: str, text: str) -> None:
    assert not finds(query, text)


def test_the_parts_of_a_query() -> None:
    assert parse_phrases('One "two three" f') == ((Part("one"),), (Part("two"), Part("three", 1)), (Part("f"),))
    assert parse_phrases("one thr") == ((Part("one"),), (Part("thr", 0, is_beginning=True),))
    assert parse_phrases("one thr ") == ((Part("one"),), (Part("thr"),)), "a space ends the word"
    assert parse_phrases("東京都a") == ((Part("東京"), Part("京都", 1), Part("a", 3)),)
    assert parse_phrases("都") == ((Part("都", 0, is_beginning=True),),)
    assert parse_phrases("one one one") == ((Part("one"),), (Part("one", 0, is_beginning=True),))
    assert parse_phrases(' "" ... \u200d ') == ()


@given(st.text(max_size=60))
def test_every_text_finds_itself(text: str) -> None:
    phrases = parse_phrases(text)
    assert matches(terms_of(text), phrases)
    for phrase in phrases:
        assert all(part.term and not set(part.term) & set("/'\\\\ ") for part in phrase), "what an index need not quote"


@given(st.text(st.sampled_from("ab東京👍 "), max_size=30), st.integers(0, 30), st.integers(1, 4))
def test_every_piece_of_an_unspaced_text_is_found(text: str, at: int, length: int) -> None:
    piece = text[at : at + length]
    if piece and set(piece) <= set("東京"):
        assert finds(piece, text)


def test_a_text_has_bounds() -> None:
    terms = terms_of("a " * MAX_MESSAGE_CHARS)
    assert {term: len(places) for term, places in terms.items()} == {"a": MAX_TERM_PLACES}
    (term,) = terms_of("x" * MAX_MESSAGE_CHARS)
    assert len(term) == MAX_TERM_CHARS
    longest = terms_of("\ufdfa" * MAX_MESSAGE_CHARS)  # each becomes four words
    assert max(place for places in longest.values() for place in places) <= MAX_TEXT_PLACES
    many = terms_of("".join(chr(0x4E00 + number % 20_000) for number in range(MAX_MESSAGE_CHARS)))
    assert max(place for places in many.values() for place in places) == MAX_MESSAGE_CHARS


# U+0F73 is no mark, but two of them; so is U+FF9E.
@pytest.mark.parametrize("pile", ["\u0301" * 1_999 + "\u0316" * 1_999, "\u0f73" * 3_999, "\u0301\uff9e" * 1_999])
def test_piles_of_marks_are_compared_in_linear_time(pile: str) -> None:
    def thread_secs(text: str) -> float:
        taken = []
        for _ in range(5):
            started = time.thread_time()
            normalise(text)
            taken.append(time.thread_time() - started)
        return min(taken)

    assert thread_secs("a" + pile) < 20 * thread_secs("\u00e9" * MAX_MESSAGE_CHARS)


def test_a_text_with_a_pile_of_marks_is_found() -> None:
    pile = "tea t\u0301\u0316" + "\u0301\u0316" * 40
    assert finds("tea", pile)
    assert finds(pile, pile)
    assert finds("t\u0316\u0301", "tea t\u0301\u0316"), "short runs are compared in their one order"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("see https://example.com", True), ("HTTP://example.com", True), ("https:// no", False), ("example.com", False)],
)
def test_links(text: str, expected: bool) -> None:
    assert has_link(text) is expected


def test_an_excerpt_has_what_was_found() -> None:
    assert excerpt("one\n two", ()) == "one two"
    text = " ".join(f"w{number}" for number in range(400))
    for word in ("w0", "w200", "w399"):
        cut = excerpt(text, parse_phrases(f'"{word}"'))
        assert word in cut.split()
        assert len(cut) == MAX_EXCERPT_CHARS
    assert excerpt(text, ()) == text[:MAX_EXCERPT_CHARS]


@pytest.mark.parametrize(
    ("query", "written"),
    [("2026", "\uff12\uff10\uff12\uff16"), ("cafe", "\uff23\uff21\uff26\uff25"), ("fine", "\ufb01ne")],
)
def test_an_excerpt_has_what_is_written_in_other_characters(query: str, written: str) -> None:
    filler = "tea " * 450
    assert written in excerpt(f"{filler}{written} {filler}", parse_phrases(query))


# U+FDFA, a phrase in one character, is 18 characters as it is compared.
LONG_WHEN_COMPARED = "\ufdfa" * MAX_MESSAGE_CHARS


def test_of_a_text_that_gets_long_only_the_beginning_is_compared() -> None:
    assert len(normalise(LONG_WHEN_COMPARED)) == MAX_COMPARED_CHARS
    assert sum(len(term) for term in terms_of("\u3300" * MAX_MESSAGE_CHARS)) <= MAX_COMPARED_CHARS * 2
    assert finds("tea", "tea " + LONG_WHEN_COMPARED[4:])
    assert not finds("tea", LONG_WHEN_COMPARED[4:] + " tea")


def test_an_excerpt_normalises_little_of_what_it_does_not_find(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[int] = []

    def measured(text: str) -> str:
        compared.append(len(normalise(text)))
        return normalise(text)

    monkeypatch.setattr("openguild_proto.policy.search.normalise", measured)
    phrases = parse_phrases("nothing")
    compared.clear()
    assert excerpt(LONG_WHEN_COMPARED, ()) == excerpt(LONG_WHEN_COMPARED, phrases) == "\ufdfa" * MAX_EXCERPT_CHARS
    assert 0 < sum(compared) < MAX_MESSAGE_CHARS * 3
