"""Sections: one place for a default, and the same bounds whoever fills them."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import msgspec
import pytest

from openguild_proto.canonical.keys import KeyRing
from openguild_proto.canonical.signing import SigningKey
from openguild_proto.limits import DEFAULT_CAPACITY_EVENTS, Limits
from openguild_proto.operations.context import Service, Settings, rates
from openguild_proto.policy.ratelimit import SlidingWindow
from openguild_proto.policy.token_bucket import TokenBucket
from openguild_proto.sessions.tokens import TokenAuthority
from openguild_proto.settings.sections import (
    GuildSettings,
    HttpLimits,
    MessagingSettings,
    SearchSettings,
    SessionSettings,
    WebSocketLimits,
    WebSocketSettings,
)
from openguild_proto.settings.setting import Contradiction


def service(settings: Settings, workers: int = 1) -> Service:
    return Service.create(settings, TokenAuthority(KeyRing(SigningKey(bytes(32)))), workers=workers)


def places(made: Service, users: int, per_user: int) -> int:
    """How many streams it admits."""
    return sum(made.sockets.reserve(f"u{user}", f"a{user}") for user in range(users) for _ in range(per_user))


def test_the_limits_of_a_connection_are_those_of_the_sections() -> None:
    assert Limits.of(HttpLimits(), WebSocketSettings()) == Limits()
    given = Limits.of(HttpLimits(idle_timeout_secs=7), WebSocketSettings(max_message_bytes=2_000, max_connections=3))
    assert given == Limits(idle_timeout_secs=7, max_message_bytes=2_000)
    assert {field.name for kind in (HttpLimits, WebSocketLimits) for field in fields(kind)} <= vars(Limits()).keys()


def test_a_ring_without_a_capacity_has_the_configured_default() -> None:
    assert MessagingSettings().queue_capacity == DEFAULT_CAPACITY_EVENTS


def test_other_programs_fill_a_section_with_msgspec() -> None:
    assert msgspec.convert({"replay_window": 7}, MessagingSettings) == MessagingSettings(replay_window=7)
    for bad, kind in (
        ({"replay_window": -1}, MessagingSettings),
        ({"max_owned_per_user": 0}, GuildSettings),
        ({"head_timeout_secs": 0.001}, HttpLimits),
        ({"access_ttl_secs": 10, "refresh_ttl_secs": 9}, SessionSettings),
    ):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(bad, kind)


def test_a_refresh_token_lives_at_least_as_long_as_an_access_token() -> None:
    assert SessionSettings(access_ttl_secs=10, refresh_ttl_secs=10).access_ttl_secs == 10
    with pytest.raises(Contradiction) as failure:
        replace(SessionSettings(), refresh_ttl_secs=9)
    assert failure.value.keys == ("session.refresh_ttl_secs", "session.access_ttl_secs")


def test_every_window_of_a_service_has_a_rate_and_follows_it() -> None:
    first, second = Settings(), Settings(
        messaging=MessagingSettings(
            max_messages_per_user_per_window=1, max_messages_per_ip_per_window=2, rate_limit_window_secs=3
        ),
        session=SessionSettings(
            max_logins_per_address_per_window=4,
            max_logins_per_account_per_window=5,
            max_refreshes_per_address_per_window=6,
            max_refreshes_per_account_per_window=7,
            login_window_secs=8,
        ),
        guilds=GuildSettings(max_writes_per_user_per_window=9, write_window_secs=10),
        search=SearchSettings(max_searches_per_user_per_window=11, window_secs=12),
    )  # fmt: skip
    made = service(first)
    windows: dict[str, Any] = {
        field.name: getattr(made, field.name)
        for field in fields(made)
        if isinstance(getattr(made, field.name), SlidingWindow | TokenBucket)
    }
    assert windows.keys() == rates(first).keys()
    assert {name: (window.limit, window.window_secs) for name, window in windows.items()} == rates(first)
    made.apply(second)
    assert made.settings is second
    assert {name: (window.limit, window.window_secs) for name, window in windows.items()} == rates(second)
    of_users = {name: rate for name, rate in rates(second).items() if not name.startswith(("peer_", "mirror_"))}
    assert of_users == {
        "user_messages": (1, 3), "address_messages": (2, 3), "user_repeats": (10, 3), "address_repeats": (20, 3),
        "address_logins": (4, 8), "account_logins": (5, 8), "address_refreshes": (6, 8), "account_refreshes": (7, 8),
        "user_writes": (9, 10), "user_searches": (11, 12), "user_typing": (120, 3), "user_reads": (120, 3),
        "address_discoveries": (30, 60), "user_owner_reads": (600, 60), "user_queries": (3_000, 60),
    }  # fmt: skip


def test_workers_divide_the_places_of_streams() -> None:
    settings = Settings(websocket=WebSocketSettings(max_connections=10, max_connections_per_user=2))
    assert places(service(settings), users=20, per_user=1) == 10
    assert places(service(settings, workers=3), users=20, per_user=1) == 4, "rounded up"
    assert places(service(settings), users=2, per_user=5) == 4
