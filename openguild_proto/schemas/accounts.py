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
    """A name and a password. An absent one counts as blank, so that all problems are reported at once (PROTOCOL 3.3.3)."""

    username: Annotated[Username, MANDATORY] = ""
    password: Annotated[Password, MANDATORY] = ""


class Registered(Body, frozen=True):
    """The new account."""

    user_id: Uuid
    username: Username


class Device(Body, frozen=True):
    """The device that logs in."""

    device_id: Annotated[DeviceText, MANDATORY] = ""
    device_name: OptionalDeviceText | None = None
    ip_address: str | None = None  # accepted for old clients, and ignored (PROTOCOL 2.7.2)


class Login(Body, frozen=True):
    """A name, a password and a device. The device's earlier session ends."""

    identifier: Annotated[Identifier, MANDATORY] = ""
    secret: Annotated[Secret, MANDATORY] = ""
    device: Annotated[Device | None, MANDATORY] = None


class RefreshToken(Body, frozen=True):
    """A refresh token to exchange or to revoke."""

    refresh_token: Annotated[NotBlank, MANDATORY] = ""


class TokenPair(Body, frozen=True):
    """An access token, and the refresh token that replaces the previous one."""

    access_token: str
    access_expires_at: Timestamp
    refresh_token: str
    refresh_expires_at: Timestamp


class DeviceLine(Body, frozen=True):
    """A device with an active session."""

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
    """A channel in which the caller has a role, apart from the role in the guild."""

    channel_id: Uuid
    guild_id: Uuid
    name: NameText
    role: Role
    effective_role: Role
    joined_at: Timestamp


class ProfileChange(Body, frozen=True):
    """The display name, which others see next to the username. An empty one removes it."""

    display_name: DisplayText


class PasswordChange(Body, frozen=True):
    """The caller's current password and the new one."""

    current_password: Annotated[Secret, MANDATORY] = ""
    new_password: Annotated[Password, MANDATORY] = ""


class PasswordConfirmation(Body, frozen=True):
    """The caller's password, to confirm an action that cannot be undone."""

    current_password: Annotated[Secret, MANDATORY] = ""


class Profile(Body, frozen=True):
    """An account as others see it. `display_name`: the username if the user has not chosen one."""

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
