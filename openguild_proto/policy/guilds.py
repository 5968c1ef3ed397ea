"""Decisions on guilds that both stores call, in the transaction of the change and with the guild locked."""

from __future__ import annotations

from msgspec.structs import replace

from openguild_proto.records import GuildRecord


def decide_guild(guild: GuildRecord, *, name: str) -> GuildRecord | None:
    """Return the guild with the new name, or None if it already has this name."""
    return replace(guild, name=name) if guild.name != name else None
