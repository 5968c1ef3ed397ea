"""What each kind of control record does to a replica's streams."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from openguild_proto.canonical.keys import KeyRing, SigningKey
from openguild_proto.http.message import OpenStream
from openguild_proto.operations.consequences import (
    AnnounceChannel,
    CloseStreams,
    ForgetChannels,
    RecheckUser,
    RefreshGuild,
    RevokeSession,
    UnknownKind,
    consequences,
    ended_meanwhile,
)
from openguild_proto.records import ControlKind, ControlRecord
from openguild_proto.sessions.tokens import TokenAuthority
from openguild_proto.ws import reasons
from openguild_proto.ws.close_codes import CloseCode

KEY = SigningKey(bytes(32))
STREAM = OpenStream(
    user_id="alice", session_id="s", verified_by=KEY.public, expires_ms=0, channel_id="c", guild_id="g"
)  # fmt: skip
NOTIFICATIONS = msgspec.structs.replace(STREAM, channel_id=None, guild_id=None)


def record(kind: ControlKind, **members: Any) -> ControlRecord:
    return ControlRecord(sequence=1, kind=kind, **members)


def test_revoked_sessions_end_with_their_user_s_streams_alone() -> None:
    *revoked, ended = consequences(record(ControlKind.SESSIONS_REVOKED, user_id="alice", session_ids=("s", "t")))
    assert revoked == [RevokeSession(session_id="s"), RevokeSession(session_id="t")]
    assert isinstance(ended, CloseStreams)
    assert (ended.code, ended.user_id) == (CloseCode.TOKEN_ENDED, "alice")
    assert ended.matches(STREAM)
    assert ended.matches(NOTIFICATIONS)
    assert not ended.matches(msgspec.structs.replace(STREAM, session_id="u"))
    assert not ended.matches(msgspec.structs.replace(STREAM, user_id="bob"))


def test_a_deleted_channel_ends_its_streams_and_is_forgotten() -> None:
    ended, forget = consequences(record(ControlKind.CHANNEL_DELETED, guild_id="g", channel_id="c"))
    assert isinstance(ended, CloseStreams)
    assert ended.code is CloseCode.CHANNEL_DELETED
    assert ended.matches(STREAM)
    assert not ended.matches(msgspec.structs.replace(STREAM, channel_id="d"))
    assert not ended.matches(NOTIFICATIONS)
    assert forget == ForgetChannels(channel_ids=("c",))


@pytest.mark.parametrize("body", [json.dumps(["c", "d"]), None])
def test_a_deleted_guild_takes_its_channels_with_it(body: str | None) -> None:
    ended, forget, refresh = consequences(record(ControlKind.GUILD_DELETED, guild_id="g", body=body))
    assert isinstance(ended, CloseStreams)
    assert ended.matches(STREAM)
    assert not ended.matches(NOTIFICATIONS), "it goes on without this guild"
    assert forget == ForgetChannels(channel_ids=("c", "d") if body is not None else ())
    assert refresh == RefreshGuild(guild_id="g")


@pytest.mark.parametrize(
    "kind",
    [
        ControlKind.MEMBER_JOINED, ControlKind.MEMBER_CHANGED, ControlKind.MEMBER_REMOVED, ControlKind.ACCESS_CHANGED,
    ],
)  # fmt: skip
def test_what_a_user_may_do_is_read_again(kind: ControlKind) -> None:
    assert consequences(record(kind, guild_id="g", user_id="alice")) == (RecheckUser(user_id="alice"),)
    assert consequences(record(kind, guild_id="g")) == ()


def test_a_new_channel_is_announced_and_a_newer_kind_passed_over() -> None:
    created = record(ControlKind.CHANNEL_CREATED, guild_id="g", channel_id="c", body="{}")
    assert consequences(created) == (AnnounceChannel(record=created),)
    assert consequences(record(ControlKind("moved"), user_id="alice")) == (UnknownKind(kind="moved"),)


@pytest.mark.parametrize("kind", list(ControlKind))
def test_every_kind_is_understood_with_the_least_that_it_can_carry(kind: ControlKind) -> None:
    assert not any(isinstance(consequence, UnknownKind) for consequence in consequences(record(kind)))


def test_who_joined_late_ends_with_session_or_key() -> None:
    tokens = TokenAuthority(KeyRing(KEY))
    assert ended_meanwhile(STREAM, tokens) is None
    tokens.replace_keys(KeyRing(SigningKey(bytes([1]) * 32)))
    assert ended_meanwhile(STREAM, tokens) == reasons.KEY_WITHDRAWN
    tokens.revoke_session("s")
    assert ended_meanwhile(STREAM, tokens) == reasons.SESSION_REVOKED
