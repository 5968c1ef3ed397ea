"""Storage effects with defaults for the members that a test does not care about."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Sequence
from typing import Any

import anyio

from openguild_proto.canonical.event import build_event
from openguild_proto.effects import Overloaded, StorageEffect
from openguild_proto.effects.accounts import InsertUser, OpenSession
from openguild_proto.effects.channels import AppendEvent, InsertChannel
from openguild_proto.effects.guilds import InsertGuild
from openguild_proto.effects.replica import (
    ReadControlHead,
    ReadControls,
    ReadHeads,
    ReadHistory,
    ReadVisible,
    RenewEpochs,
    Visible,
)
from openguild_proto.operations.posting import fingerprint_of
from openguild_proto.records import Author, ChannelRecord, ControlRecord, GuildRecord, History
from openguild_proto.sessions.refresh import hash_refresh_token, new_refresh_token
from openguild_runtime.storage.base import Storage
from tests.support.passwords import PASSWORD_HASH

NOW = 1_700_000_000_000
DAY = 86_400_000
_numbers = itertools.count(1)


def new_id() -> str:
    return str(uuid.uuid4())


def token(number: int) -> bytes:
    """Return the stored hash of refresh token `number`."""
    hashed = hash_refresh_token(new_refresh_token(number.to_bytes(16, "big")))
    assert hashed is not None
    return hashed


async def add_user(storage: Storage, name: str | None = None) -> str:
    user_id, name = new_id(), name or f"user{next(_numbers)}"
    assert await storage.perform(
        InsertUser(
            user_id=user_id, username=name, username_key=name.casefold(), password_hash=PASSWORD_HASH, now_ms=NOW
        )
    )
    return user_id


async def add_guild(storage: Storage, owner_id: str, name: str = "guild", now_ms: int = NOW) -> str:
    guild = await storage.perform(InsertGuild(author=Author(owner_id), guild_id=new_id(), name=name, now_ms=now_ms))
    assert isinstance(guild, GuildRecord)
    return guild.guild_id


async def add_channel(storage: Storage, guild_id: str, user_id: str, name: str = "general", now_ms: int = NOW) -> str:
    effect = InsertChannel(
        author=Author(user_id), channel_id=new_id(), guild_id=guild_id, name=name, now_ms=now_ms
    )  # fmt: skip
    channel = await storage.perform(effect)
    assert isinstance(channel, ChannelRecord)
    return channel.channel_id


def append(
    channel_id: str,
    sender_id: str = "someone",
    text: str = "hi",
    nonce: str | None = None,
    author: Author | None = None,
) -> AppendEvent:
    """Return an append by an account of another server, unless `author` is given."""
    built = build_event(
        server_name="elsewhere.test", room_id=channel_id, event_type="message", sender=sender_id,
        content={"content": text, "nonce": new_id()}, origin_ts_ms=NOW, signer=None,
    )  # fmt: skip
    return AppendEvent(
        author=author,
        channel_id=channel_id,
        sender_id=sender_id,
        event_id=built.event_id,
        event_type="message",
        wire=built.wire,
        nonce=nonce,
        fingerprint=fingerprint_of("message", None, text),
        now_ms=NOW,
    )


def login(
    user_id: str, number: int, device_id: str = "phone", now_ms: int = NOW, checked_hash: str = PASSWORD_HASH
) -> OpenSession:
    """Return the login of a session whose refresh token is `token(number)`: access for an hour, refresh for a month."""
    return OpenSession(
        session_id=new_id(),
        family_id=new_id(),
        user_id=user_id,
        checked_hash=checked_hash,
        refresh_hash=token(number),
        refresh_secret=bytes([number % 256]) * 32,
        device_id=device_id,
        device_name="Phone",
        user_agent="test",
        ip_address="192.0.2.1",
        now_ms=now_ms,
        access_expires_ms=now_ms + 3_600_000,
        refresh_expires_ms=now_ms + 30 * DAY,
    )


async def heads(storage: Storage, channel_ids: Sequence[str]) -> dict[str, int]:
    found = await storage.perform(ReadHeads(channel_ids=tuple(channel_ids)))
    return {channel_id: head.sequence for channel_id, head in found.items()}


async def visible(storage: Storage, user_id: str, max_channels: int = 100) -> Visible:
    return await storage.perform(ReadVisible(user_id=user_id, max_channels=max_channels))


async def control_head(storage: Storage) -> int:
    return await storage.perform(ReadControlHead())


async def controls(storage: Storage, after: int, limit: int) -> list[ControlRecord]:
    return list(await storage.perform(ReadControls(after=after, limit=limit)))


async def history(storage: Storage) -> History | None:
    return await storage.perform(ReadHistory())


async def renew_epochs(storage: Storage, found: History, at_least: int) -> bool:
    return await storage.perform(RenewEpochs(found=found, at_least=at_least))


async def perform_unless_locked(storage: Storage, effect: StorageEffect[Any]) -> None:
    """Perform it, again where it is refused because others hold its author for longer than a post waits."""
    while True:
        try:
            await storage.perform(effect)
        except Overloaded:
            await anyio.sleep(0.05)  # their lock ends when one of the other tasks commits
        else:
            return
