"""Bodies of accounts and sessions (PROTOCOL 4)."""

from __future__ import annotations

from typing import Annotated

import msgspec

from openguild_proto.schemas.fields import (
    MANDATORY,
    DeviceText,
    DisplayText,
    Identifier,
    NameText,
    NotBlank,
    OptionalDeviceText,
    Password,
    Role,
    Secret,
    Timestamp,
    Username,
    Uuid,
)


class Body(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Base of request and response bodies: absent optional members are left out."""


class Version(Body, frozen=True):
    """The release of the server."""

    version: str


class Credentials(Body, frozen=True):
    """Absent members read as blank, so that every problem is reported at once (PROTOCOL 3.3.3)."""

    username: Annotated[Username, MANDATORY] = ""
    password: Annotated[Password, MANDATORY] = ""


class Registered(Body, frozen=True):
    """The account that was opened."""

    user_id: Uuid
    username: Username


class Device(Body, frozen=True):
    """The device that logs in."""

    device_id: Annotated[DeviceText, MANDATORY] = ""
    device_name: OptionalDeviceText | None = None
    ip_address: str | None = None  # accepted for old clients, never believed (PROTOCOL 2.7.2)


class Login(Body, frozen=True):
    """Name, password and device; the device's former session ends."""

    identifier: Annotated[Identifier, MANDATORY] = ""
    secret: Annotated[Secret, MANDATORY] = ""
    device: Annotated[Device | None, MANDATORY] = None


class RefreshToken(Body, frozen=True):
    """A refresh token, to be exchanged or revoked."""

    refresh_token: Annotated[NotBlank, MANDATORY] = ""


class TokenPair(Body, frozen=True):
    """An access token and the refresh token that replaces the one before."""

    access_token: str
    access_expires_at: Timestamp
    refresh_token: str
    refresh_expires_at: Timestamp


class DeviceLine(Body, frozen=True):
    """A device with a living session."""

    device_id: str
    device_name: str | None = None
    last_seen_at: Timestamp | None = None
    ip_address: str | None = None
    user_agent: str | None = None


class GuildLine(Body, frozen=True):
    """A guild that the caller is a member of."""

    guild_id: Uuid
    name: NameText
    role: Role
    joined_at: Timestamp


class ChannelLine(Body, frozen=True):
    """A channel in which the caller has a role of their own."""

    channel_id: Uuid
    guild_id: Uuid
    name: NameText
    role: Role
    effective_role: Role
    joined_at: Timestamp


class ProfileChange(Body, frozen=True):
    """The name that others see beside the username; an empty one is none."""

    display_name: DisplayText


class PasswordChange(Body, frozen=True):
    """The caller's password, and the one that replaces it."""

    current_password: Annotated[Secret, MANDATORY] = ""
    new_password: Annotated[Password, MANDATORY] = ""


class PasswordConfirmation(Body, frozen=True):
    """The caller's password, for what cannot be undone."""

    current_password: Annotated[Secret, MANDATORY] = ""


class Profile(Body, frozen=True):
    """An account as others see it. `display_name`: the username where there is none."""

    user_id: Uuid
    username: Username
    display_name: NameText


class Me(Body, frozen=True):
    """The caller's account, roles and memberships."""

    user_id: Uuid
    username: str
    display_name: str
    server_name: str
    created_at: Timestamp | None = None
    updated_at: Timestamp | None = None
    roles: tuple[Role, ...] = ()
    guilds: tuple[GuildLine, ...] = ()
    channels: tuple[ChannelLine, ...] = ()
