"""The table of routes: a row for each path and method, with the operation that answers it (PROTOCOL 3.1)."""

from __future__ import annotations

from openguild_proto.limits import MAX_BODY_BYTES, MAX_MESSAGE_BODY_BYTES, MAX_SMALL_BODY_BYTES
from openguild_proto.operations import (
    channels,
    guilds,
    health,
    invites,
    members,
    messages,
    reads,
    sessions,
    streams,
    users,
)
from openguild_proto.operations.description import describing
from openguild_proto.operations.routing import BadParameter, Matched, Route, Router, WrongMethod

_openapi = describing(lambda: ROUTES)

ROUTES: tuple[Route, ...] = (
    Route("GET", "/health", health.health, "The process answers", "none", client=False),
    Route("GET", "/live", health.live, "Liveness probe", "none", client=False),
    Route("GET", "/ready", health.ready, "Readiness probe", "none", answer="Readiness", client=False),
    Route("GET", "/version", health.version, "Version of the server", "none", client=False),
    Route("GET", "/metrics", health.metrics, "Prometheus metrics", "none", client=False),
    Route("GET", "/openapi.json", _openapi, "This description", "none", client=False),
    Route("POST", "/users/register", users.register, "Open an account", "none", body="Credentials", answer="Registered", status=201),
    Route("GET", "/users/me", users.me, "Who am I", permission="self", answer="Me"),
    Route("POST", "/sessions/login", sessions.login, "Log in on a device", "none", body="Login", answer="TokenPair"),
    Route("POST", "/sessions/refresh", sessions.refresh, "Exchange a refresh token", "refresh", body="RefreshToken", answer="TokenPair"),
    Route("POST", "/sessions/revoke", sessions.revoke, "Log out", "refresh", body="RefreshToken", status=204),
    Route("GET", "/sessions/devices", sessions.list_devices, "List own devices", permission="self", answer="[DeviceLine]"),
    Route("DELETE", "/sessions/devices/{device_id}", sessions.delete_device, "End a device's session", permission="self", status=204),
    Route("GET", "/guilds", guilds.list_guilds, "List guilds", permission="self", answer="[Guild]"),
    Route("POST", "/guilds", guilds.create_guild, "Create a guild", permission="self", body="Name", answer="Guild"),
    Route("GET", "/guilds/{guild_id}", guilds.show_guild, "Show a guild", permission="READ", answer="Guild"),
    Route("PATCH", "/guilds/{guild_id}", guilds.rename_guild, "Rename a guild", permission="RENAME", body="Name", answer="Guild"),
    Route("DELETE", "/guilds/{guild_id}", guilds.delete_guild, "Delete a guild", permission="DELETE", status=204),
    Route("GET", "/guilds/{guild_id}/channels", channels.list_channels, "List channels", permission="READ", answer="[Channel]"),
    Route(
        "POST", "/guilds/{guild_id}/channels", channels.create_channel, "Create a channel",
        permission="CREATE_CHANNELS", body="Name", answer="Channel",
    ),
    Route("GET", "/guilds/{guild_id}/members", members.list_members, "List members", permission="READ", answer="[Member]"),
    Route(
        "PUT", "/guilds/{guild_id}/members/{user_id}", members.set_role, "Change a member's role",
        permission="MANAGE_MEMBERS", body="RoleBody", answer="Member",
    ),
    Route("DELETE", "/guilds/{guild_id}/members/@me", members.leave, "Leave a guild", permission="self", status=204),
    Route("DELETE", "/guilds/{guild_id}/members/{user_id}", members.kick, "Remove a member", permission="MANAGE_MEMBERS", status=204),
    Route(
        "POST", "/guilds/{guild_id}/invites", invites.create_invite, "Create an invite",
        permission="CREATE_INVITES", body="NewInvite", answer="Invite", status=201,
    ),
    Route(
        "GET", "/guilds/{guild_id}/invites", invites.list_invites, "List invites",
        permission="CREATE_INVITES", answer="[Invite]",
    ),
    Route("GET", "/invites/{code}", invites.preview_invite, "Preview an invite", permission="self", answer="InvitePreview"),
    Route("POST", "/invites/{code}/accept", invites.accept_invite, "Join by invite", permission="self", answer="Member"),
    Route("DELETE", "/invites/{code}", invites.delete_invite, "Delete an invite", permission="self or MANAGE_MEMBERS", status=204),
    Route("GET", "/channels/unread", reads.list_unread, "Unread counts", permission="self", answer="[ReadPosition]"),
    Route("GET", "/channels/{channel_id}", channels.show_channel, "Show a channel", permission="READ", answer="Channel"),
    Route("PATCH", "/channels/{channel_id}", channels.rename_channel, "Rename a channel", permission="RENAME", body="Name", answer="Channel"),
    Route("DELETE", "/channels/{channel_id}", channels.delete_channel, "Delete a channel", permission="DELETE", status=204),
    Route(
        "POST", "/channels/{channel_id}/messages", messages.post_message, "Post a message",
        permission="SEND_MESSAGES", body="PostMessage", answer="PostedMessage", max_body_bytes=MAX_MESSAGE_BODY_BYTES,
    ),
    Route("GET", "/channels/{channel_id}/events", messages.list_events, "Read the log", permission="READ", answer="[ListedEvent]"),
    Route(
        "POST", "/channels/{channel_id}/read", reads.mark_read, "Move the read position",
        permission="READ", body="MarkReadBody", answer="ReadPosition",
    ),
    Route("GET", "/channels/{channel_id}/ws", streams.open_channel_stream, "Stream a channel", "socket", "READ", status=101),
    Route("GET", "/notifications/ws", streams.open_notification_stream, "Stream notifications", "socket", "self", status=101),
    Route(
        "POST", "/federation/transactions", health.not_implemented, "Federation", "none",
        status=501, client=False, max_body_bytes=MAX_BODY_BYTES,
    ),
    Route("GET", "/federation/channels/{channel_id}/events", health.not_implemented, "Federation", "none", status=501, client=False),
    Route("GET", "/mls/key-packages", health.not_implemented, "MLS", "none", status=501, client=False),
    Route("GET", "/mls/handshake-test-vectors", health.not_implemented, "MLS", "none", status=501, client=False),
    Route("POST", "/mls/key-packages/{identity}/rotate", health.not_implemented, "MLS", "none", status=501, client=False),
)  # fmt: skip

_ROUTER = Router(ROUTES)


def match(method: str, path: str) -> Matched | BadParameter | WrongMethod | None:
    """What answers `method` at the raw `path`; None: nothing does. HEAD is answered where GET is."""
    return _ROUTER.match(method, path)


def max_body_bytes(method: str, path: str) -> int:
    """What the route that answers `method` at the raw `path` takes; a path without one takes a small body."""
    matched = match(method, path)
    return matched.route.max_body_bytes if isinstance(matched, Matched) else MAX_SMALL_BODY_BYTES
