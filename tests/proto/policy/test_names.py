"""What names may hold (CONTRACT 6, A13)."""

from __future__ import annotations

import unicodedata

import pytest

from openguild_proto.errors import ErrorCode, Refusal
from openguild_proto.policy.names import check_name
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


def test_d_22_the_key_of_a_key_is_itself() -> None:
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


@pytest.mark.parametrize("name", ["", "  ", "\u3164", "\u200d\u200c", "\u2800 \ufe0f", "\u115f\u1160"])
def test_a_title_of_which_nothing_is_seen_is_none(name: str) -> None:
    assert problem_of(name) == ("must be provided", "guild_name_empty")


def test_control_characters_are_named_first() -> None:
    assert problem_of("a\x1b\u202e") == ("must not contain control characters", "validation")


def test_the_length_is_looked_at_before_the_characters() -> None:
    assert problem_of("\u2800" * 65) == ("must be at most 64 characters long", "guild_name_length")
    assert problem_of("\u2800" * 64) == ("must be provided", "guild_name_empty")
