"""Writes a million messages in the form that a server stores, without posting them, and indexes them as a server does."""

from __future__ import annotations

import time
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import asyncpg
import msgspec

from benchmarks.search.talk import Talk
from openguild_proto.effects.roles import GrantChannelRole, GrantGuildRole
from openguild_proto.effects.search import IndexMessages
from openguild_proto.policy.reactions import EmojiUse, write_reactions
from openguild_runtime.storage.postgres import PostgresStorage
from tests.support.deeds import NOW, add_channel, add_guild, add_user

GUILDS, CHANNELS, AUTHORS = 4, 200, 50
BEGAN = datetime(2025, 11, 1, tzinfo=UTC)
SPAN_SECS = 365 * 86_400
CHUNK = 50_000
EVENT = [
    "log_id", "sequence", "event_id", "event_type", "sender_id", "wire", "fingerprint", "message_number", "created_at",
]  # fmt: skip
STATE = [
    "log_id", "sequence", "revision", "versions", "pinned_at", "replies", "reactions", "crowded",
]  # fmt: skip


class Place(NamedTuple):
    """The searching users, and the channels that they search."""

    everywhere: str  # reads all channels
    of_guild: str  # reads the channels of one guild
    of_channel: str  # reads one channel
    authors: list[str]
    guilds: list[str]
    channels: list[str]


async def people_and_channels(storage: PostgresStorage) -> Place:
    """Create guilds, channels and users."""
    everywhere, of_guild, of_channel = [await add_user(storage, name) for name in ("all", "guild", "channel")]
    guilds = [await add_guild(storage, everywhere, f"guild {number}") for number in range(GUILDS)]
    channels = [
        await add_channel(storage, guilds[number * GUILDS // CHANNELS], everywhere, f"channel {number}")
        for number in range(CHANNELS)
    ]
    authors = [await add_user(storage, f"author {number}") for number in range(AUTHORS)]
    for author in authors:
        for guild in guilds:
            await storage.perform(GrantGuildRole(guild_id=guild, user_id=author, role="member", now_ms=NOW))
    await storage.perform(GrantGuildRole(guild_id=guilds[1], user_id=of_guild, role="member", now_ms=NOW))
    await storage.perform(GrantChannelRole(channel_id=channels[7], user_id=of_channel, role="guest", now_ms=NOW))
    return Place(everywhere, of_guild, of_channel, authors, guilds, channels)


async def fill(url: str, place: Place, messages: int) -> None:
    """Write the messages in chronological order, and a change of every tenth."""
    connection = await asyncpg.connect(url)
    talk, heads = Talk(), [0] * CHANNELS
    chance = talk.chance
    rows: list[tuple[Any, ...]] = []
    states: list[tuple[Any, ...]] = []
    reactions: list[tuple[Any, ...]] = []
    for number in range(messages):
        channel = min(
            int(chance.paretovariate(1.1)) - 1 if chance.random() < 0.5 else chance.randrange(CHANNELS), CHANNELS - 1
        )
        heads[channel] += 1
        at = BEGAN + timedelta(milliseconds=number * SPAN_SECS * 1000 // messages)
        author = chance.choice(place.authors)
        reply = {"reply_to": "$" + "2" * 40} if chance.random() < 0.1 else {}
        content = {"author": {"id": author, "username": "author"}, "content": talk.text(channel), **reply}
        wire = msgspec.json.encode({"content": content, "event_type": "message", "sender": author})
        event_id = f"${number:040d}".replace("0", "z")
        log_id = uuid.UUID(place.channels[channel])
        rows.append((log_id, heads[channel], event_id, "message", author, wire, bytes(32), heads[channel], at))
        if chance.random() < 0.1:
            reacted = chance.random() < 0.5
            pinned = at if chance.random() < 0.02 else None
            reactions_shown = write_reactions([EmojiUse("+1", 1, me=False, reactors=[author])]) if reacted else "[]"
            states.append((log_id, heads[channel], 1, 1, pinned, 0, reactions_shown, False))
            if reacted:
                reactions.append((log_id, heads[channel], "+1", author))
        if len(rows) == CHUNK or number == messages - 1:
            await connection.copy_records_to_table("log_events", records=rows, columns=EVENT)
            await connection.copy_records_to_table("message_states", records=states, columns=STATE)
            await connection.copy_records_to_table(
                "reactions", records=reactions, columns=["log_id", "message", "emoji", "user_id"]
            )
            rows, states, reactions = [], [], []
    await connection.executemany(
        "UPDATE logs SET head_sequence = $2, message_count = $2 WHERE log_id = $1",
        list(zip(place.channels, heads, strict=True)),
    )
    await connection.execute("VACUUM ANALYZE log_events, message_states, logs")
    await connection.close()


async def index(storage: PostgresStorage) -> float:
    """Index everything; return the seconds."""
    began = time.perf_counter()
    more = await storage.perform(IndexMessages(everywhere=True))
    while more:
        more = await storage.perform(IndexMessages())
    return time.perf_counter() - began
