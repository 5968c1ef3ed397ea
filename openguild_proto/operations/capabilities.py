"""`GET /client/v1`: the features and limits of the server, without authentication (PROTOCOL 13.1.4)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import msgspec

from openguild_proto import limits
from openguild_proto.effects.base import Operation
from openguild_proto.federation.policy import Mode
from openguild_proto.gateway.encoding import SUBPROTOCOLS
from openguild_proto.gateway.hello import CAPABILITIES
from openguild_proto.http.message import JSON, Response
from openguild_proto.operations.call import Call
from openguild_proto.operations.context import Limit, Settings, rates
from openguild_proto.operations.route import route
from openguild_proto.operations.router import CLIENT_PREFIX
from openguild_proto.schemas.capabilities import (
    Capabilities,
    CountLimits,
    OfferedGateway,
    OfferedStreams,
    PageLimits,
    RateLimitPolicy,
    SizeLimits,
    TextLimits,
)
from openguild_proto.ws.handshake import SUBPROTOCOL

CACHE_SECS = 60
FEATURES = (
    "edits", "redactions", "reactions", "reaction_clearing", "pins", "replies", "mentions", "bans", "search", "typing", "logs",
    "sync", "gateway", "idempotency_keys", "rate_limit_headers", "password_change", "account_deletion",
)  # fmt: skip
TEXTS = TextLimits(
    message=limits.MAX_MESSAGE_CHARS,
    name=limits.MAX_NAME_CHARS,
    display_name=limits.MAX_NAME_CHARS,
    topic=limits.MAX_TOPIC_CHARS,
    reason=limits.MAX_REASON_CHARS,
    emoji=limits.MAX_EMOJI_CHARS,
    typing_preview=limits.MAX_TYPING_CHARS,
    search_query=limits.MAX_QUERY_CHARS,
    key=limits.MAX_NONCE_CHARS,
    password_min=limits.MIN_PASSWORD_CHARS,
    password=limits.MAX_PASSWORD_CHARS,
)
PAGES = PageLimits(
    lines=limits.MAX_PAGE_LINES,
    events=limits.MAX_PAGE_EVENTS,
    messages=limits.MAX_PAGE_EVENTS,
    pins=limits.MAX_CHANNEL_PINS,
    search_results=limits.MAX_SEARCH_HITS,
    sync_logs=limits.MAX_SYNC_LOGS,
)


@route(
    "GET", CLIENT_PREFIX, "List the capabilities of this server", {200: Capabilities},
    auth="none", query=None, client=False, response_headers=("Cache-Control",),
)  # fmt: skip
def show_capabilities(call: Call[None, None]) -> Operation[Response]:
    """Show versions, features and limits; they may be cached for a minute."""
    yield from ()
    body = _described(call.ctx.service.settings)
    return Response(
        status=200, body=body, content_type=JSON, headers=(("cache-control", f"public, max-age={CACHE_SECS}"),)
    )


@lru_cache(maxsize=4)  # settings only change when an operator changes them
def _described(settings: Settings) -> bytes:
    messaging, websocket, guilds = settings.messaging, settings.websocket, settings.guilds
    offered = Capabilities(
        server_name=settings.server_name,
        version=settings.version,
        api_versions=[CLIENT_PREFIX.rpartition("/")[2]],
        features=[*FEATURES, *_optional_features(settings)],
        registration_open=settings.registration.enabled,
        gateway=OfferedGateway(
            path=f"{CLIENT_PREFIX}/gateway",
            subprotocols=list(SUBPROTOCOLS),
            capabilities=list(CAPABILITIES),
            heartbeat_ms=int(limits.GATEWAY_HEARTBEAT_SECS * 1_000),
            auth_ms=int(limits.GATEWAY_AUTH_SECS * 1_000),
            logs=limits.MAX_GATEWAY_LOGS,
            held_frames=limits.MAX_HELD_FRAMES,
            frames_per_minute=websocket.max_frames_per_minute,
        ),
        streams=OfferedStreams(
            subprotocols=[SUBPROTOCOL],
            ping_ms=int(websocket.ping_interval_secs * 1_000),
            replay_events=messaging.replay_window,
            queued_events=messaging.queue_capacity,
            frames_per_minute=websocket.max_frames_per_minute,
        ),
        characters=TEXTS,
        pages=PAGES,
        counts=CountLimits(
            guilds_owned=guilds.max_owned_per_user,
            guilds_joined=guilds.max_joined_per_user,
            guild_channels=guilds.max_channels_per_guild,
            guild_invites=guilds.max_invites_per_guild,
            guild_bans=guilds.max_bans_per_guild,
            channel_pins=limits.MAX_CHANNEL_PINS,
            message_versions=limits.MAX_MESSAGE_VERSIONS,
            message_emoji=limits.MAX_MESSAGE_EMOJI,
            message_mentions=limits.MAX_MENTIONED_USERS,
            devices=limits.MAX_DEVICES_PER_USER,
            presence_members=settings.presence.max_guild_members,
        ),
        bytes=SizeLimits(
            body=limits.MAX_SMALL_BODY_BYTES,
            message_body=limits.MAX_MESSAGE_BODY_BYTES,
            sync_body=limits.MAX_SYNC_BODY_BYTES,
            socket_message=websocket.max_message_bytes,
        ),
        rate_limits=list(_policies(settings)),
    )
    return msgspec.json.encode(offered)


def _optional_features(settings: Settings) -> Iterator[str]:
    if settings.presence.enabled:
        yield "presence"
    if settings.federation.mode is not Mode.OFF:
        yield "federation"


def _policies(settings: Settings) -> Iterator[RateLimitPolicy]:
    windows, websocket = rates(settings), settings.websocket
    for limit in Limit:
        for policy in limit.policies:
            of = "address" if policy.of_address else "account"
            if limit is Limit.STREAMS:
                of_address, of_account = websocket.max_connections_per_address, websocket.max_connections_per_user
                yield RateLimitPolicy(
                    policy.name, limit.name.lower(), of, of_address if policy.of_address else of_account
                )
            else:
                quota, secs = windows[policy.window]
                yield RateLimitPolicy(policy.name, limit.name.lower(), of, quota, int(secs))
