"""What both stores decide alike, by itself: members, invites, read positions, logins, attempts."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from openguild_proto.errors import ErrorCode, Refusal
from openguild_proto.policy.attempts import BINS, bin_of, decide_attempt, forgotten_until
from openguild_proto.policy.channels import creator_role, decide_read_position, is_same_post
from openguild_proto.policy.count_limits import check_count
from openguild_proto.policy.invites import Joining, decide_joining, decide_new_invite, is_valid_invite
from openguild_proto.policy.logins import Login, decide_login, is_alive
from openguild_proto.policy.members import (
    Ended,
    decide_ended,
    decide_grant,
    decide_removal,
    decide_role_change,
)
from openguild_proto.policy.permissions import ROLES, rank
from openguild_proto.records import InviteRecord, LimitReached, MemberChange

roles = st.sampled_from(ROLES)


def change(held: str | None, role: str, owners: int = 1, owned: int = 1, author_role: str = "owner") -> MemberChange:
    return decide_role_change(
        author_role=author_role, held=held, role=role, own=False, owners=owners, owned=owned, limit=2
    )


def invite(
    code: str = "c", *, max_uses: int | None = None, uses: int = 0, expires_at_ms: int | None = None, created: int = 0
) -> InviteRecord:
    return InviteRecord(code, "g", "guild", max_uses, uses, expires_at_ms, "u", created)


def test_the_last_owner_stays_one() -> None:
    assert change("owner", "admin") is MemberChange.LAST_OWNER
    assert change("owner", "admin", owners=2) is MemberChange.DONE
    assert change("owner", "owner") is MemberChange.DONE
    assert decide_removal(author_role=None, held="owner", owners=1) is MemberChange.LAST_OWNER
    assert decide_removal(author_role=None, held="owner", owners=2) is MemberChange.DONE
    assert decide_grant(held="owner", role="guest", owners=1, is_banned=False) is MemberChange.LAST_OWNER
    assert decide_grant(held=None, role="guest", owners=1, is_banned=False) is MemberChange.DONE


def test_an_operator_grants_no_role_to_the_banned() -> None:
    assert decide_grant(held=None, role="owner", owners=1, is_banned=True) is MemberChange.BANNED


def test_a_new_owner_needs_room_for_one_more_guild() -> None:
    assert change("admin", "owner", owned=2) is MemberChange.LIMIT_REACHED
    assert change("admin", "owner") is MemberChange.DONE
    assert change("owner", "owner", owned=2) is MemberChange.DONE


def test_non_members_have_no_role_to_change() -> None:
    assert change(None, "guest") is MemberChange.NOT_MEMBER
    assert decide_removal(author_role=None, held=None, owners=1) is MemberChange.NOT_MEMBER


@given(roles, roles, roles)
def test_a_change_is_refused_by_rank_before_anything_else(author_role: str, held: str, role: str) -> None:
    allowed = rank(role) <= rank(author_role) and (rank(held) < rank(author_role) or author_role == held == "owner")
    if allowed:
        change(held, role, author_role=author_role)
        return
    with pytest.raises(Refusal) as refused:
        change(held, role, author_role=author_role)
    assert refused.value.code is ErrorCode.FORBIDDEN


def test_what_ends_with_a_role() -> None:
    assert decide_ended("owner", None) == Ended(None, invites=True)
    assert decide_ended("moderator", "guest") == Ended(tuple(r for r in ROLES if r != "guest"), invites=True)
    assert decide_ended("owner", "maintainer") == Ended(("owner", "admin", "moderator"), invites=False)
    assert decide_ended("guest", "moderator") == Ended((), invites=False)
    assert decide_ended(None, "guest") == Ended((), invites=True)


@given(st.integers(0, 5), st.none() | st.integers(1, 5), st.none() | st.integers(0, 10), st.integers(0, 10))
def test_an_invite_lives_until_it_is_used_up_or_over(
    uses: int, max_uses: int | None, expires_at_ms: int | None, now_ms: int
) -> None:
    lives = is_valid_invite(invite(uses=uses, max_uses=max_uses, expires_at_ms=expires_at_ms), now_ms)
    assert lives == ((max_uses is None or uses < max_uses) and (expires_at_ms is None or expires_at_ms > now_ms))


def test_joining() -> None:
    def joining(
        line: InviteRecord | None, *, is_member: bool = False, is_banned: bool = False, joined: int = 0
    ) -> Joining:
        return decide_joining(line, is_member=is_member, is_banned=is_banned, joined=joined, now_ms=5, limit=3)

    assert joining(None) is Joining.INVALID
    assert joining(invite()) is Joining.JOIN
    assert joining(invite(expires_at_ms=5)) is Joining.INVALID
    assert joining(invite(max_uses=1, uses=1)) is Joining.INVALID
    assert joining(invite(max_uses=1, uses=1), is_member=True, joined=3) is Joining.MEMBER_ALREADY
    assert joining(invite(), joined=3) is Joining.LIMIT_REACHED
    assert joining(invite(expires_at_ms=5), joined=3) is Joining.INVALID
    assert joining(invite(), is_banned=True) is Joining.BANNED
    assert joining(invite(), is_banned=True, joined=3) is Joining.BANNED
    assert joining(invite(expires_at_ms=5), is_banned=True) is Joining.INVALID


def test_a_guild_keeps_the_newest_spent_invites_and_as_many_living_ones() -> None:
    spent = [invite(f"s{number}", max_uses=1, uses=1, created=number) for number in range(4)]
    living = [invite("a"), invite("b")]
    assert decide_new_invite([*spent, living[0]], now_ms=0, limit=2) == ("s1", "s0")
    assert decide_new_invite([*spent, *living], now_ms=0, limit=2) == LimitReached(2)


def test_room_and_the_creators_role() -> None:
    assert check_count(1, 2) is None
    assert check_count(2, 2) == LimitReached(2)
    assert creator_role("maintainer") == "moderator"
    assert creator_role(None) is None


@given(st.none() | st.integers(-5, 50), st.integers(0, 30), st.integers(0, 30))
def test_a_read_position_never_falls(asked: int | None, head: int, stored: int) -> None:
    position = decide_read_position(asked, head=head, stored=stored)
    assert position >= stored
    assert position <= max(head, stored)
    if asked is None:
        assert position == max(head, stored)


def test_a_post_repeats_by_its_text_or_its_id() -> None:
    def same(fingerprint: bytes, event_id: str) -> bool:
        return is_same_post(
            fingerprint=fingerprint, stored_fingerprint=b"f", event_id=event_id, stored_event_id="$stored"
        )

    assert same(b"f", "$other")
    assert same(b"g", "$stored")
    assert not same(b"g", "$other")


def test_a_login_ends_its_devices_session_and_the_one_seen_longest_ago() -> None:
    logins = [
        Login("a", "phone", 1, 100),
        Login("b", "laptop", 2, 100),
        Login("c", "tablet", 3, 100),
        Login("d", "old", 9, 5),
    ]
    assert decide_login(logins, device_id="phone", now_ms=10, limit=10) == ["a"]
    assert decide_login(logins, device_id="new", now_ms=10, limit=3) == ["a"]
    assert decide_login(logins, device_id="tablet", now_ms=10, limit=2) == ["a", "c"]
    assert decide_login(logins, device_id="old", now_ms=10, limit=10) == ["d"], "an expired one, too"
    assert is_alive(revoked=False, expires_at_ms=11, now_ms=10)
    assert not is_alive(revoked=False, expires_at_ms=10, now_ms=10)
    assert not is_alive(revoked=True, expires_at_ms=11, now_ms=10)


@given(st.lists(st.integers(0, 300_000), max_size=60), st.integers(1, 5))
def test_no_window_holds_more_attempts_than_the_limit(times: list[int], limit: int) -> None:
    bins: dict[int, int] = {}
    admitted = []
    for now_ms in sorted(times):
        counted = {at: count for at, count in bins.items() if at > forgotten_until(now_ms, 60)}
        wait_secs = decide_attempt([(counted, limit)], now_ms=now_ms, window_secs=60)
        if wait_secs is None:
            at = bin_of(now_ms, 60)
            bins[at] = bins.get(at, 0) + 1
            admitted.append(now_ms)
        else:
            assert 0 < wait_secs <= 60 + 60 / BINS
    for start in admitted:
        assert sum(start <= at < start + 60_000 for at in admitted) <= limit
