"""Effects on guilds, members and invites, with defaults for the members that a test does not care about."""

from __future__ import annotations

from typing import Any

import pytest

from openguild_proto.effects import StorageEffect
from openguild_proto.effects.channels import (
    InsertChannel,
)
from openguild_proto.effects.guilds import (
    AcceptInvite,
    InsertInvite,
    RemoveMember,
)
from openguild_proto.errors import ErrorCode, Refusal
from openguild_proto.records import Author, InviteRecord
from openguild_runtime.storage.base import Storage
from tests.support.deeds import NOW, new_id


async def invite(
    storage: Storage,
    guild_id: str,
    by: str,
    max_uses: int | None = None,
    lives_ms: int | None = None,
) -> str:
    effect = new_invite(guild_id, by, max_uses, lives_ms)
    assert isinstance(await storage.perform(effect), InviteRecord)
    return effect.code


def new_invite(guild_id: str, by: str, max_uses: int | None = None, lives_ms: int | None = None) -> InsertInvite:
    return InsertInvite(
        author=Author(by),
        code=new_id()[:12],
        guild_id=guild_id,
        max_uses=max_uses,
        expires_at_ms=NOW + lives_ms if lives_ms is not None else None,
        now_ms=NOW,
    )


def new_channel(guild_id: str, by: str) -> InsertChannel:
    return InsertChannel(author=Author(by), channel_id=new_id(), guild_id=guild_id, name="x", now_ms=NOW)


def kick(guild_id: str, user_id: str, by: str) -> RemoveMember:
    return RemoveMember(author=Author(by), guild_id=guild_id, user_id=user_id, now_ms=NOW)


async def refused(storage: Storage, effect: StorageEffect[Any], code: ErrorCode = ErrorCode.NOT_FOUND) -> None:
    with pytest.raises(Refusal) as refusal:
        await storage.perform(effect)
    assert refusal.value.code is code


def accept(code: str, user_id: str, now_ms: int = NOW) -> AcceptInvite:
    return AcceptInvite(author=Author(user_id), code=code, role="member", now_ms=now_ms)
