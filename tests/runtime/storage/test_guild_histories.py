"""Random histories of guilds, members and sessions leave the same logs in both stores, byte for byte."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from typing import Any

import hypothesis.strategies as st
import pytest
from anyio.from_thread import start_blocking_portal
from hypothesis import HealthCheck, given, settings

from openguild_proto.effects.accounts import (
    ChangePassword,
    DeleteAccount,
    DescribeUser,
    InsertUser,
    ListOwnedAlone,
    OpenSession,
    RevokeDevice,
    SetDisplayName,
    SetPassword,
)
from openguild_proto.effects.channels import DeleteChannel, InsertChannel, MarkRead, ReadEvents, UpdateChannel
from openguild_proto.effects.guilds import (
    AcceptInvite,
    DeleteGuild,
    DeleteInvite,
    FindGuildAccess,
    InsertGuild,
    InsertInvite,
    ListMembers,
    RemoveMember,
    RenameGuild,
    SetMemberRole,
)
from openguild_proto.effects.logs import FindAccountMemberships, FindLogHead, FindLogs, ReadLogs
from openguild_proto.effects.roles import GrantChannelRole, GrantGuildRole, GrantServerRole, RevokeServerRole
from openguild_proto.effects.timeouts import EndTimeout, TimeOutMember
from openguild_proto.records import Author, LogPart
from openguild_runtime.storage.memory import MemoryStorage
from tests.runtime.storage.test_message_histories import Both, opened
from tests.support.deeds import DAY, NOW, append, new_id, token

USERS = tuple(f"00000000-0000-4000-8000-00000000000{number}" for number in range(4))
FOREVER = 4_000_000_000_000  # by the database's clock, too
ROLES = ("guest", "member", "maintainer", "moderator", "admin", "owner")


@pytest.fixture(scope="module")
def both(module_database: str) -> Iterator[Both]:
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(opened(module_database)) as store:
        stores = Both(portal, (MemoryStorage(), store))
        yield stores


def open_accounts(both: Both) -> None:
    """Open those that are new, or were deleted by the history before."""
    for user in USERS:
        both.alike(InsertUser(user_id=user, username=user, username_key=user, password_hash="", now_ms=NOW))


STEP = st.tuples(
    st.sampled_from([
        "rename", "channel", "update", "drop", "invite", "join", "join", "uninvite", "leave", "kick", "role", "grant",
        "channel role", "server role", "no server role", "read", "name", "log in", "log out", "password",
        "operator's password", "delete account", "time out", "let write",
    ]),
    st.integers(0, 3), st.integers(0, 3), st.integers(0, 9), st.sampled_from(ROLES),
)  # fmt: skip


class Deeds:
    """The effects of one history, in a guild of its own."""

    def __init__(self) -> None:
        self.guild = new_id()
        self.channels = [new_id()]
        self.codes = [new_id()[:12]]
        self.sessions = 0

    def begin(self) -> list[Any]:
        return [
            InsertGuild(author=Author(USERS[0]), guild_id=self.guild, name="g", now_ms=NOW),
            self.channel(0, self.channels[0], NOW),
            self.invite(0, self.codes[0], NOW),
        ]

    def channel(self, user: int, channel_id: str, now_ms: int) -> InsertChannel:
        author = Author(USERS[user])
        return InsertChannel(
            author=author, channel_id=channel_id, guild_id=self.guild, name="c", topic="t", position=3, now_ms=now_ms
        )

    def invite(self, user: int, code: str, now_ms: int) -> InsertInvite:
        return InsertInvite(
            author=Author(USERS[user]), code=code, guild_id=self.guild, max_uses=5, expires_at_ms=None, now_ms=now_ms
        )

    def effect(self, kind: str, user: int, other: int, place: int, role: str, now_ms: int) -> Any:
        author, guild, one, two = Author(USERS[user]), self.guild, USERS[user], USERS[other]
        channel, code = self.channels[place % len(self.channels)], self.codes[place % len(self.codes)]
        match kind:
            case "rename":
                return RenameGuild(author=author, guild_id=guild, name=f"n{place}", now_ms=now_ms, reason="why not")
            case "channel":
                self.channels.append(new_id())
                return self.channel(user, self.channels[-1], now_ms)
            case "update":
                topic = (None, "", "話題")[place % 3]
                return UpdateChannel(
                    author=author, channel_id=channel, now_ms=now_ms, name="c", topic=topic, position=place
                )
            case "drop":
                return DeleteChannel(author=author, channel_id=channel, now_ms=now_ms, reason="old")
            case "invite":
                self.codes.append(new_id()[:12])
                return self.invite(user, self.codes[-1], now_ms)
            case "join":
                return AcceptInvite(author=author, code=code, role="member", now_ms=now_ms)
            case "uninvite":
                return DeleteInvite(author=author, code=code, now_ms=now_ms)
            case "leave":
                return RemoveMember(author=author, guild_id=guild, user_id=one, now_ms=now_ms)
            case "kick":
                return RemoveMember(author=author, guild_id=guild, user_id=two, now_ms=now_ms, reason="spam")
            case "role":
                return SetMemberRole(author=author, guild_id=guild, user_id=two, role=role, now_ms=now_ms)
            case "grant":
                return GrantGuildRole(guild_id=guild, user_id=two, role=role, now_ms=now_ms)
            case "channel role":
                return GrantChannelRole(channel_id=channel, user_id=two, role=role, now_ms=now_ms)
            case "server role":
                return GrantServerRole(user_id=one, role="moderator", now_ms=now_ms)
            case "no server role":
                return RevokeServerRole(user_id=one, role="moderator", now_ms=now_ms)
            case "read":
                return MarkRead(author=author, channel_id=channel, sequence=None, now_ms=now_ms)
            case "name":
                return SetDisplayName(author=author, display_name=f"n{place}" if place else None, now_ms=now_ms)
            case "log out":
                return RevokeDevice(author=author, device_id=f"d{place % 2}", now_ms=now_ms)
            case "password":
                return ChangePassword(author=author, checked_hash="", password_hash="", now_ms=now_ms)
            case "time out":
                ends_ms = FOREVER if place % 3 else NOW - 1
                return TimeOutMember(author=author, guild_id=guild, user_id=two, ends_ms=ends_ms, now_ms=now_ms)
            case "let write":
                return EndTimeout(author=author, guild_id=guild, user_id=two, now_ms=now_ms)
            case "delete account":
                return DeleteAccount(author=author, checked_hash="", now_ms=now_ms)
            case "operator's password":
                return SetPassword(user_id=one, password_hash="", now_ms=now_ms)
            case _:
                self.sessions += 1
                number = int.from_bytes(hashlib.sha256(f"{guild}{self.sessions}".encode()).digest()[:3])
                return OpenSession(
                    session_id=new_id(), family_id=new_id(), user_id=one, checked_hash="", refresh_hash=token(number),
                    refresh_secret=bytes(32), device_id=f"d{place % 2}", device_name=None, user_agent=None, ip_address=None,
                    now_ms=now_ms, access_expires_ms=now_ms + DAY, refresh_expires_ms=now_ms + DAY, limit=3,
                )  # fmt: skip


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(history=st.lists(STEP, min_size=1, max_size=25))
def test_a_history_leaves_the_same_logs_in_both_stores(
    both: Both, history: list[tuple[str, int, int, int, str]]
) -> None:
    deeds = Deeds()
    open_accounts(both)
    for effect in deeds.begin():
        both.alike(effect)
    both.alike(append(deeds.channels[0], USERS[0]))
    for moment, step in enumerate(history):
        both.alike(deeds.effect(*step, NOW + moment))
    (guild_log,) = both.alike(ReadEvents(log_id=deeds.guild, limit=200, after=0))
    assert [event.sequence for event in guild_log] == list(range(1, len(guild_log) + 1))
    both.alike(ListMembers(guild_id=deeds.guild))
    logs = (*USERS, deeds.guild, *deeds.channels, new_id())
    for user in USERS:
        (own,) = both.alike(ReadEvents(log_id=user, limit=200))
        assert all(later.sequence == event.sequence + 1 for event, later in itertools.pairwise(own or ()))
        both.alike(
            ListOwnedAlone(user_id=user, limit=2),
            DescribeUser(user_id=user),
            FindGuildAccess(guild_id=deeds.guild, user_id=user),
        )
        both.alike(FindLogHead(log_id=user), FindLogHead(log_id=deeds.guild), FindLogHead(log_id=new_id()))
        both.alike(FindLogs(user_id=user, log_ids=logs), FindAccountMemberships(user_id=user))
    both.alike(ReadLogs(parts=(LogPart(deeds.guild, 1, 3), LogPart(new_id(), 0, 9), LogPart(USERS[1], 0, 2))))
    both.alike(DeleteGuild(author=Author(USERS[0]), guild_id=deeds.guild), FindLogHead(log_id=deeds.guild))
