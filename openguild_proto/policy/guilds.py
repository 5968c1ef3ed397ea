"""Decisions on guilds. Both stores call them in the transaction of the change, with the guild locked."""

from __future__ import annotations

from msgspec.structs import replace

from openguild_proto.records import GuildRecord


def decide_guild(guild: GuildRecord, *, name: str) -> GuildRecord | None:
    """Return the guild with the new name, or None if it already has it."""
    return replace(guild, name=name) if guild.name != name else None
