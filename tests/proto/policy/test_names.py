"""What names may hold (PROTOCOL 1.3)."""

from __future__ import annotations

import re
import unicodedata

import hypothesis.strategies as st
import pytest
from hypothesis import given

from openguild_proto.errors import ErrorCode, Refusal
from openguild_proto.limits import MAX_MARKS, MAX_TOPIC_CHARS
from openguild_proto.policy.emoji import checked_emoji, shown_emoji
from openguild_proto.policy.names import check_display_name, check_name, check_place, title_problem
from openguild_proto.sessions.passwords import normalise_username, username_problems

UNSEEN = [
    0x00AD, 0x034F, 0x061C, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x180B, 0x180E, 0x180F, 0x200B, 0x200C, 0x200D, 0x200E, 0x202E,
    0x2060, 0x2066, 0x2800, 0x3164, 0xFE00, 0xFE0F, 0xFEFF, 0xFFA0, 0xE0001, 0xE0061, 0xE0100, 0xE01EF,
]  # fmt: skip
EMOJI = [
    "\U0001f600",
    "\u2764\ufe0f",  # variation selector
    "\U0001f468\u200d\U0001f469\u200d\U0001f467",  # family, joined
    "\U0001f44d\U0001f3fd",  # skin tone
    "1\ufe0f\u20e3",  # keycap
    "\U0001f1e9\U0001f1ea",  # a country's flag
    "\U0001f3f4\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f",  # Scotland's, spelled in tags
]


def problem_of(name: str) -> tuple[str, str | None]:
    with pytest.raises(Refusal) as raised:
        check_name(name, "guild_name")
    assert raised.value.code is ErrorCode.VALIDATION
    return raised.value.details[0].message, raised.value.reason


@pytest.mark.parametrize("code", UNSEEN, ids=hex)
@pytest.mark.parametrize("form", ["{}", "al{}ice", "alice{}"])
def test_a_username_shows_all_that_it_is(code: int, form: str) -> None:
    name, _ = normalise_username(form.format(chr(code)))
    (problem,) = username_problems(name)
    assert (problem.field, problem.message) == ("username", "must not contain invisible or unassigned characters")


@pytest.mark.parametrize("code", [0x0378, 0xE000, 0x10FFFF, 0x2028, 0x2029, 0x85, 0x1B], ids=hex)
def test_a_username_holds_nothing_private_unassigned_or_breaking(code: int) -> None:
    assert username_problems(normalise_username(f"al{chr(code)}ice")[0])


@pytest.mark.parametrize(
    "name", ["alice", "Ålice", "Владимир", "李小龙", "みなみ", "علي", "नमस्ते", "a b", "o'neil", "\U0001f600"]
)
def test_names_of_people_are_names(name: str) -> None:
    assert username_problems(normalise_username(name)[0]) == []


def test_the_key_of_a_key_is_itself() -> None:
    """NFKC, case folding and NFKC again: no third name hides behind two that are one."""
    for code in range(0x30000):
        if unicodedata.category(chr(code)) not in {"Cn", "Co", "Cs"}:
            _, key = normalise_username(f"{chr(code)}\u0345")
            assert normalise_username(key)[1] == key, hex(code)


@pytest.mark.parametrize("name", [*EMOJI, "club \U0001f469\u200d\U0001f4bb", "می\u200cخواهم", "general", "#1"])
def test_guilds_and_channels_may_be_called_what_people_write(name: str) -> None:
    assert check_name(f" {name} ", "guild_name") == name


@pytest.mark.parametrize(
    "code", [0x202A, 0x202B, 0x202D, 0x202E, 0x2066, 0x2069, 0x200B, 0x200E, 0x200F, 0xFEFF, 0xE0061, 0x2028]
)
def test_a_title_turns_nothing_round(code: int) -> None:
    assert problem_of(f"a{chr(code)}b") == ("must not contain format characters", "validation")


SCRIPTS = [
    "Tiếng Việt ệ ở", "e\u0323\u0302", "שָׁלוֹם", "בְּרֵאשִׁ֖ית", "السَّلَامُ عَلَيْكُمْ", "สวัสดีที่นี่",
    "བསྒྲུབས་", "क्ष", "हिन्दी",
    "ന്\u200d", "र्\u200dक", "র\u200d্যাব", "ක්\u200dෂ", "می\u200cخواهم", "نامه\u200cای", "خانه\u200cهای",
    "كَتَ\u064e\u0651ب"[:3], "ខ្មែរ", "မြန်မာ",
    "葛\U000e0100城市", "ᠮᠣᠩ\u180bᠭᠣᠯ", "\u2813\u2811\u2800\u283a", "가나다", "\u1112\u119e\u11ab", "ⓐ", "Zoë",
    "naïve", "İstanbul",
]  # fmt: skip
MORE_EMOJI = [
    "\U0001f642\u200d\u2194\ufe0f", "\u2764\ufe0f\u200d\U0001f525", "\U0001f469\U0001f3fd\u200d\U0001f4bb",
    "\U0001f3f3\ufe0f\u200d\U0001f308", "\U0001f3f4\u200d\u2620\ufe0f", "\u00a9\ufe0f", "#\ufe0f\u20e3",
    "\u2764\ufe0e",
    "\U0001faf1\U0001f3fb\u200d\U0001faf2\U0001f3ff",
]  # fmt: skip
INVISIBLE = "must not contain invisible characters without effect"


@pytest.mark.parametrize("name", [*SCRIPTS, *MORE_EMOJI])
def test_scripts_and_emoji_may_use_what_they_need(name: str) -> None:
    assert check_name(name, "guild_name") == name.strip()


@pytest.mark.parametrize(
    "name",
    [
        "a\u034fb", "pay\u200dpal", "pay\u200cpal", "\u200dab", "ab\u200d", "ab\u200c", "a\ufe0fb",
        "a\ufe01b", "中\ufe0f", "a\U000e0100", "1\u200d2",
        "\U0001f600\u200d", "\u200d\U0001f600", "\U0001f600\u200da", "a\u200d\U0001f600", "ⓐ\u200dⓑ",
        "\U0001f600\ufe0f\ufe0f", "a\u2800b", "\u2813\u2800",
        "a\u3164b", "a\uffa0", "\u1100\u1160", "\u115f\u1161", "a\u17b4", "a\u180bb", "a\u2065b", "a\ufff0b",
        "a\U000e0000b", "a\U0001d159b",
        "ا\u200cب", "ا\u200dب", "ب\u200c", "\u200cب", "ب\u200c ب", "ب\u200c\u200cب", "क\u200dक", "क\u200cक",
        "क्\u200d\u200dक", "\u05d0\u200c\u05d1",
        "中\u200d国", "1\u200c2", "\u0e01\u200c\u0e02",
    ],
)  # fmt: skip
def test_elsewhere_they_only_make_names_that_look_the_same(name: str) -> None:
    assert problem_of(name) == (INVISIBLE, "validation")


@pytest.mark.parametrize(
    "mark", ["\u0301", "\u0323\u0302\u0301\u0300\u0303", "\u20dd\u0301\u0302\u0303\u0304", "\u0e49\u0e38"]
)
def test_marks_do_not_pile_up(mark: str) -> None:
    many = f"must not contain more than {MAX_MARKS} combining marks on a letter, nor the same one twice in a row"
    piled = "a" + (mark * 60)[:60]
    assert problem_of(piled) == (many, "validation")
    (problem,) = username_problems(normalise_username(piled)[0])
    assert problem.message == many
    assert title_problem("x" * 10 + piled) == many


@pytest.mark.parametrize("name", ["\u0301a", "a \u0301b", "\u0e34", "\u093f", "\u20dd"])
def test_a_mark_has_a_letter(name: str) -> None:
    alone = "must not contain a combining mark without a letter"
    assert problem_of(name) == (alone, "validation")
    assert [problem.message for problem in username_problems(name)] == [alone]


def test_joiners_do_not_begin_a_letter() -> None:
    assert title_problem("क" + "्\u200d" * 5 + "क") is not None
    assert title_problem("क" + "्\u200dक" * 5) is None


@given(st.text(st.sampled_from("aक्با\u0301\u0323\u200c\u200d\ufe0f\U0001f600\u034f\u2800 "), max_size=12))
def test_nothing_that_is_taken_hides_a_character(text: str) -> None:
    """Whatever is taken has no joiner beside a Latin letter, no blank beside a space, and no pile of marks."""
    if title_problem(text) is None:
        assert "\u034f" not in text
        assert not re.search(
            "a[\u200c\u200d\ufe0f]|\u200c(?:[a ]|$)|(?<!\u094d)\u200d(?:[a ]|$)|\u2800|[\u0301\u0323]{5}|(?:^| )[\u0301\u0323]",
            text,
        )


@given(st.text(max_size=64))
def test_any_text_is_judged(text: str) -> None:
    title_problem(text)
    username_problems(normalise_username(text)[0])


@pytest.mark.parametrize("name", ["", "  ", "\u3164", "\u200d\u200c", "\u2800 \ufe0f", "\u115f\u1160"])
def test_a_title_of_which_nothing_is_seen_is_none(name: str) -> None:
    assert problem_of(name) == ("must be provided", "guild_name_empty")


def test_control_characters_are_named_first() -> None:
    assert problem_of("a\x1b\u202e") == ("must not contain control characters", "validation")


def test_long_texts_are_refused_before_they_are_normalised(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes quadratic time in the number of combining marks: half a second for 30 KB."""

    def normalise(form: str, text: str) -> str:
        assert len(text) <= MAX_TOPIC_CHARS, f"{len(text)} characters are normalised to {form}"
        return text

    monkeypatch.setattr("unicodedata.normalize", normalise)
    pile = "a" + "\u0301" * 7_000 + "\u0316" * 7_000
    for refuse in (
        lambda: checked_emoji(pile),
        lambda: shown_emoji(pile),
        lambda: check_display_name(pile),
        lambda: check_place(pile, 0),
    ):
        with pytest.raises(Refusal) as refused:
            refuse()
        (problem,) = refused.value.details
        assert "characters long" in problem.message


def test_the_length_is_looked_at_before_the_characters() -> None:
    assert problem_of("\u2800" * 65) == ("must be at most 64 characters long", "guild_name_length")
    assert problem_of("\u2800" * 64) == ("must be provided", "guild_name_empty")
