"""Who may ban whom, and what a repeated ban and a full list do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openguild_proto.errors import ErrorCode, Refusal
from openguild_proto.mirror_records import GuildBan
from openguild_proto.policy.bans import decide_ban, may_mirror_ban
from openguild_proto.policy.permissions import ROLES, rank
from openguild_proto.records import LimitReached
from openguild_proto.settings.sections import MAX_GUILD_BANS

BAN = GuildBan("bob", "olga", 5, "bob", "spam")


def decide(known: GuildBan | None = None, *, role: str = "owner", held: str | None = None, bans: int = 0) -> object:
    return decide_ban(BAN, known, author_role=role, held=held, bans=bans, limit=2)


@given(st.sampled_from(ROLES), st.sampled_from([None, *ROLES]))
def test_only_lower_ranks_and_non_members_are_banned(role: str, held: str | None) -> None:
    if held is None or rank(held) < rank(role):
        assert decide(role=role, held=held) is BAN
        return
    with pytest.raises(Refusal) as refused:
        decide(role=role, held=held)
    assert refused.value.code is ErrorCode.FORBIDDEN


def test_nobody_bans_themselves() -> None:
    own = GuildBan("olga", "olga", 5)
    with pytest.raises(Refusal) as refused:
        decide_ban(own, None, author_role="owner", held=None, bans=0, limit=2)
    assert refused.value.code is ErrorCode.FORBIDDEN


def test_a_ban_stays_as_it_is_also_where_no_more_fit() -> None:
    known = GuildBan("bob", "eve", 1, reason="earlier")
    assert decide(known, bans=2) is known
    assert decide(bans=2) == LimitReached(2)


def test_a_mirror_takes_no_more_bans_than_an_honest_owner_has() -> None:
    assert may_mirror_ban(MAX_GUILD_BANS - 1)
    assert not may_mirror_ban(MAX_GUILD_BANS)
