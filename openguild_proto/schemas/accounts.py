"""Bodies of accounts and sessions (CONTRACT 5, A8)."""

from __future__ import annotations

import msgspec


class Body(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Base of request and response bodies: absent optional members are left out."""


class Credentials(Body, frozen=True):
    """Absent members read as blank, so that every problem is reported at once (CONTRACT 5.1)."""

    username: str = ""
    password: str = ""


class Registered(Body, frozen=True):
    user_id: str
    username: str


class Device(Body, frozen=True):
    device_id: str = ""
    device_name: str | None = None
    ip_address: str | None = None  # accepted for old clients, never believed (CONTRACT 3.7)


class Login(Body, frozen=True):
    identifier: str = ""
    secret: str = ""
    device: Device | None = None


class RefreshToken(Body, frozen=True):
    refresh_token: str = ""


class TokenPair(Body, frozen=True):
    access_token: str
    access_expires_at: str
    refresh_token: str
    refresh_expires_at: str


class DeviceLine(Body, frozen=True):
    device_id: str
    device_name: str | None = None
    last_seen_at: str | None = None
    ip_address: str | None = None
    user_agent: str | None = None


class GuildLine(Body, frozen=True):
    guild_id: str
    name: str
    role: str
    joined_at: str


class ChannelLine(Body, frozen=True):
    channel_id: str
    guild_id: str
    name: str
    role: str
    effective_role: str
    joined_at: str


class Me(Body, frozen=True):
    user_id: str
    username: str
    display_name: str
    server_name: str
    created_at: str | None = None
    updated_at: str | None = None
    roles: tuple[str, ...] = ()
    guilds: tuple[GuildLine, ...] = ()
    channels: tuple[ChannelLine, ...] = ()
