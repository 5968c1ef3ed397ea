"""Whom a text mentions (PROTOCOL 6.11)."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openguild_proto.errors import Refusal
from openguild_proto.policy.mentions import allowed_mentions, find_mentions
from openguild_proto.records import NOBODY, Mentions

ONE, TWO = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"

CASES = {
    "hello": NOBODY,
    f"<@{ONE}>": Mentions((ONE,)),
    f"こんにちは<@{TWO}>さん、<@{ONE}> e\u0301<@{TWO}>": Mentions((TWO, ONE)),
    f"مرحبا <@{ONE}>": Mentions((ONE,)),
    "<@&moderator> and <@&moon>": Mentions((), ("moderator",)),
    "@everyone!": Mentions((), (), True),
    "大家好@everyone": NOBODY,  # a letter stands before it, as in an address
    "大家好 @everyone。": Mentions((), (), True),
    "me@everyone.example": NOBODY,
    "@everyoneelse": NOBODY,
    f"`<@{ONE}>` <@{TWO}>": Mentions((TWO,)),
    f"```\n<@{ONE}>\n@everyone``` <@&admin>": Mentions((), ("admin",)),
    f"`never closed <@{ONE}>": Mentions((ONE,)),
    f"<@{ONE.upper().replace('1', 'A')}>": NOBODY,
    f"<@ {ONE}> <@!{ONE}>": NOBODY,
}


@pytest.mark.parametrize("text", CASES, ids=repr)
def test_mentions_are_found(text: str) -> None:
    assert find_mentions(text) == CASES[text]


@given(
    st.lists(
        st.sampled_from([f"<@{ONE}>", f"<@{TWO}>", "<@&owner>", "@everyone", "`", "```", " ", "好", "👩‍👩‍👧", "\n"])
    )
)
def test_every_text_is_read(parts: list[str]) -> None:
    found = find_mentions("".join(parts))
    assert set(found.users) <= {ONE, TWO}
    if not any("`" in part for part in parts):
        assert (ONE in found.users) == (f"<@{ONE}>" in parts)


@pytest.mark.parametrize("text", ["`" * 4_000, "<@" * 2_000, "``` `" * 800, "@everyone" * 440, "<@&a" * 1_000])
def test_a_hostile_text_costs_no_more_than_another(text: str) -> None:
    before = time.process_time()
    find_mentions(text)
    assert time.process_time() - before < 0.1


def test_many_need_the_right_and_users_do_not() -> None:
    named = Mentions((ONE, TWO), ("admin",), True)

    def allowed(
        role: str,
        users: list[str] | None = None,
        roles: list[str] | None = None,
        everyone: bool | None = None,
    ) -> Mentions:
        return allowed_mentions(named, role=role, users=users, roles=roles, everyone=everyone)

    assert allowed("maintainer") == Mentions((ONE, TWO))
    assert allowed("moderator") == named
    assert allowed("moderator", everyone=False) == Mentions((ONE, TWO), ("admin",))
    assert allowed("owner", users=[TWO], roles=[], everyone=True) == Mentions((TWO,), (), True)


def test_at_most_50_users_are_mentioned() -> None:
    users = tuple(str(number) for number in range(51))
    few = allowed_mentions(Mentions(users), role="owner", users=users[1:], roles=None, everyone=None)
    assert len(few.users) == 50
    with pytest.raises(Refusal, match="validation_error"):
        allowed_mentions(Mentions(users), role="owner", users=None, roles=None, everyone=None)
