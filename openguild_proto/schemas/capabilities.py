"""The body of `GET /client/v1`: the features and limits of a server (PROTOCOL 13.1.4)."""

from __future__ import annotations

from openguild_proto.schemas.accounts import Body
from openguild_proto.schemas.fields import Count


class OfferedGateway(Body, frozen=True, omit_defaults=False):
    """The gateway (PROTOCOL 15). `subprotocols`: in the server's order of preference."""

    path: str
    subprotocols: list[str]
    capabilities: list[str]
    heartbeat_ms: Count
    auth_ms: Count
    logs: Count  # followed by one socket
    held_frames: Count
    frames_per_minute: Count  # 0: no limit


class OfferedStreams(Body, frozen=True, omit_defaults=False):
    """The streams of channels and notifications (PROTOCOL 8)."""

    subprotocols: list[str]
    ping_ms: Count
    replay_events: Count  # sent to a stream without `since`
    queued_events: Count  # that a reader may be behind
    frames_per_minute: Count  # 0: no limit


class TextLimits(Body, frozen=True, omit_defaults=False):
    """Lengths in characters, after trimming."""

    message: Count
    name: Count
    display_name: Count
    topic: Count
    reason: Count
    emoji: Count
    typing_preview: Count
    search_query: Count
    key: Count  # nonces and idempotency keys
    password_min: Count
    password: Count


class PageLimits(Body, frozen=True, omit_defaults=False):
    """The maximum `limit` of each kind of page."""

    lines: Count  # guilds, channels, members, invites, mentions
    events: Count
    messages: Count
    pins: Count
    search_results: Count
    sync_logs: Count


class CountLimits(Body, frozen=True, omit_defaults=False):
    """Maximum counts."""

    guilds_owned: Count
    guilds_joined: Count
    guild_channels: Count
    guild_invites: Count
    guild_bans: Count
    channel_pins: Count
    message_versions: Count
    message_emoji: Count
    message_mentions: Count
    devices: Count
    presence_members: Count  # members of a guild up to which it shows presence


class SizeLimits(Body, frozen=True, omit_defaults=False):
    """Sizes in bytes."""

    body: Count
    message_body: Count
    sync_body: Count
    socket_message: Count


class RateLimitPolicy(Body, frozen=True):
    """A rate-limit policy, by its name in the headers (PROTOCOL 9.1.4). `window_secs` absent: it counts open sockets."""

    name: str
    limit: str  # a name from the table of limits
    of: str  # account or address
    quota: Count
    window_secs: Count | None = None


class Capabilities(Body, frozen=True, omit_defaults=False):
    """The features of this server. Clients use them and never infer features from a version."""

    server_name: str
    version: str
    api_versions: list[str]
    features: list[str]
    registration_open: bool
    gateway: OfferedGateway
    streams: OfferedStreams
    characters: TextLimits
    pages: PageLimits
    counts: CountLimits
    bytes: SizeLimits
    rate_limits: list[RateLimitPolicy]
