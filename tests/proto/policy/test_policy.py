"""Roles, limits and counts of connections (PROTOCOL 5.1, 5.2, 9.1, 9.5)."""

from __future__ import annotations

from ipaddress import IPv6Address

import hypothesis.strategies as st
import pytest
from hypothesis import given

from openguild_proto.errors import ErrorCode, Refusal
from openguild_proto.limits import SHARE_RETRY_SECS
from openguild_proto.policy.addresses import limit_key
from openguild_proto.policy.permissions import (
    LOWEST_ROLE,
    RANKS,
    ROLES,
    Permission,
    effective_role,
    normalise_role,
    rank,
    require_channel,
    require_guild,
)
from openguild_proto.policy.quotas import StreamLimiter
from openguild_proto.policy.ratelimit import SlidingWindow
from openguild_proto.records import ChannelAccess, ChannelRecord, GuildAccess, GuildRecord, LogPosition

GUILD = GuildRecord("g", "guild", 0)
PLACE = LogPosition("g", 1, 1)
CHANNEL = ChannelRecord("c", "g", "channel", 0)
roles = st.sampled_from([None, *ROLES])


# --- roles -----------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from(ROLES)), roles, roles)
def test_the_effective_role_is_the_highest_of_the_three(
    server: list[str], guild: str | None, channel: str | None
) -> None:
    best = effective_role(server, guild, channel)
    assert rank(best) == max(map(rank, [*server, guild, channel]))


def test_labels_are_case_insensitive() -> None:
    assert normalise_role(" Owner ") == "owner"
    assert normalise_role("king") is None
    assert sorted(RANKS.values()) == list(range(8))


@pytest.mark.parametrize("permission", Permission)
@pytest.mark.parametrize("role", ROLES)
def test_each_role_gives_its_permissions_and_no_others(permission: Permission, role: str) -> None:
    """PROTOCOL 5.2."""
    access = GuildAccess(GUILD, role, (), PLACE)
    if RANKS[role] >= RANKS[LOWEST_ROLE[permission]]:
        assert require_guild(access, permission) == role
    else:
        with pytest.raises(Refusal) as refusal:
            require_guild(access, permission)
        assert refusal.value.code is ErrorCode.FORBIDDEN


def test_strangers_get_404() -> None:
    for access in (None, GuildAccess(GUILD, None, (), PLACE), GuildAccess(GUILD, None, ("maintainer",), PLACE)):
        with pytest.raises(Refusal) as refusal:
            require_guild(access, Permission.READ)
        assert refusal.value.code is ErrorCode.NOT_FOUND
    assert require_guild(GuildAccess(GUILD, None, ("moderator",), PLACE), Permission.READ) == "moderator"


def test_channels_also_admit_an_explicit_role() -> None:
    assert require_channel(ChannelAccess(CHANNEL, None, "viewer", (), 0), Permission.READ) == "viewer"
    assert require_channel(ChannelAccess(CHANNEL, "member", "viewer", (), 0), Permission.SEND_MESSAGES) == "member"
    for access in (None, ChannelAccess(CHANNEL, None, None, (), 0)):
        with pytest.raises(Refusal) as refusal:
            require_channel(access, Permission.READ)
        assert refusal.value.code is ErrorCode.NOT_FOUND


# --- addresses -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::FFFF:c000:201", "192.0.2.1"),
        ("2001:db8:0:1::1", "2001:db8:0:1::/64"),
        ("2001:DB8:0:1:ffff:ffff:ffff:ffff", "2001:db8:0:1::/64"),
        ("2001:db8:0:2::1", "2001:db8:0:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),  # a socket's peer on the same link
        ("::1", "::/64"),
        ("", ""),
        ("/run/a.sock", "/run/a.sock"),
    ],
)
def test_an_address_counts_as_what_one_host_may_have(address: str, key: str) -> None:
    assert limit_key(address) == key


@given(st.integers(0, 2**128 - 1), st.integers(0, 2**64 - 1))
def test_all_of_a_64_is_one(number: int, other: int) -> None:
    first = IPv6Address(number)
    second = IPv6Address(number >> 64 << 64 | other)
    if first.ipv4_mapped is None and second.ipv4_mapped is None:
        assert limit_key(str(first)) == limit_key(str(second))


# --- sliding windows -------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 30, allow_nan=False), max_size=60), st.integers(1, 5))
def test_never_more_than_the_limit_in_any_window(gaps: list[float], limit: int) -> None:
    """Also at the edge where fixed windows let twice as many through (PROTOCOL 9.1.1)."""
    window = SlidingWindow(limit, 60.0)
    now, admitted = 0.0, []
    for gap in gaps:
        now += gap
        wait = window.hit("k", now)
        if wait is None:
            admitted.append(now)
        else:
            assert 0 < wait <= 60.0
            assert sum(now - 60.0 < at <= now for at in admitted) == limit, "refused only when it is full"
    for end in admitted:
        assert sum(end - 60.0 < at <= end for at in admitted) <= limit


def test_the_wait_is_exact() -> None:
    window = SlidingWindow(2, 10.0)
    assert window.hit("k", 1.0) is None
    assert window.hit("k", 4.0) is None
    assert window.hit("k", 5.0) == pytest.approx(6.0)
    assert window.peek("k", 5.0) == pytest.approx(6.0)
    assert window.hit("k", 11.0) is None


def test_a_share_that_may_end_soon_names_a_short_wait() -> None:
    window = SlidingWindow(3, 60.0)
    window.divisor = 3
    assert window.hit("k", 0.0) is None
    assert window.hit("k", 1.0) == SHARE_RETRY_SECS
    assert window.left("k", 1.0) == (0, SHARE_RETRY_SECS)
    assert window.hit("k", 58.0) == pytest.approx(2.0), "the share itself admits sooner"
    window.absorb("k", 2, 58.0)
    assert window.hit("k", 58.5) == pytest.approx(5.0), "the whole limit admits at 60"
    window.absorb("k", 1, 59.0)
    assert window.hit("k", 59.5) == pytest.approx(58.5), "the whole limit is used up, too"


@given(st.lists(st.floats(0, 30, allow_nan=False), max_size=40), st.integers(1, 5), st.integers(1, 3))
def test_what_is_left_is_what_would_be_admitted(gaps: list[float], limit: int, divisor: int) -> None:
    window = SlidingWindow(limit, 60.0)
    window.divisor = divisor
    now = 0.0
    for gap in gaps:
        now += gap
        left, secs = window.left("k", now)
        assert 0 <= left <= max(1, limit // divisor)
        assert 0 < secs <= 60
        wait = window.peek("k", now)
        assert (wait is None) == (left > 0)
        assert wait is None or secs - 1 < wait <= secs
        admitted = 0
        while window.hit("k", now) is None:
            admitted += 1
        assert admitted == left


def test_what_is_refunded_was_never_admitted() -> None:
    window = SlidingWindow(2, 10.0)
    window.fresh = {}
    for moment in (1.0, 2.0, 3.0):
        assert window.hit("k", moment) is None
        if moment == 2.0:
            window.refund("k")
    assert window.hit("k", 4.0) == pytest.approx(7.0)
    assert window.take_fresh() == {"k": 2}, "the other replicas are told the same"
    window.refund("k")
    window.refund("never seen")
    assert window.hit("k", 5.0) is None
    for _ in range(3):
        window.refund("k")
    assert window.take_fresh() == {}
    assert window.hit("k", 6.0) is None
    assert window.hit("k", 6.0) is None
    assert window.hit("other", 50.0) is None
    assert len(window) == 1


def test_keys_are_forgotten_and_bounded() -> None:
    window = SlidingWindow(1, 10.0, max_keys=100)
    for number in range(1_000):
        window.hit(f"k{number}", 0.0)
        assert len(window) <= 100
    window.hit("later", 20.0)
    assert len(window) == 1


def test_any_number_of_keys_is_bounded() -> None:
    window = SlidingWindow(60, 60.0)
    for number in range(250_000):
        window.hit(str(number), number / 20_000)
    assert len(window) <= 100_000


# --- places ----------------------------------------------------------------------------------------


def test_places_are_limited_three_ways_and_given_back() -> None:
    limiter = StreamLimiter(4, 2, 3)
    assert limiter.reserve("a", "1")
    assert limiter.reserve("a", "1")
    assert not limiter.reserve("a", "2"), "per user"
    assert limiter.reserve("b", "1")
    assert not limiter.reserve("c", "1"), "per address"
    assert limiter.reserve("c", "2")
    assert not limiter.reserve("d", "3"), "in total"
    limiter.release("a", "1")
    assert limiter.total == 3
    assert limiter.reserve("d", "1")
