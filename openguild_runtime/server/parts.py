"""What the configuration chooses: the core's service, the store and the bus of one replica."""

from __future__ import annotations

from anyio.abc import TaskGroup

import openguild_runtime
from openguild_proto.canonical.keys import EventSigner, parse_seed
from openguild_proto.limits import MAX_REPEATS_PER_MESSAGE, Limits
from openguild_proto.operations.context import Service, Settings
from openguild_proto.policy.connections import ConnectionLimiter
from openguild_proto.policy.ratelimit import SlidingWindow
from openguild_proto.sessions.tokens import TokenAuthority
from openguild_runtime.bus.base import Bus
from openguild_runtime.bus.local import LocalBus
from openguild_runtime.bus.nats import NatsBus
from openguild_runtime.config.pool_shares import COMMITTERS
from openguild_runtime.config.sections import ServerConfig
from openguild_runtime.observability.metrics import Metrics
from openguild_runtime.observability.tracing import Tracing
from openguild_runtime.storage.base import Storage
from openguild_runtime.storage.memory import MemoryStorage
from openguild_runtime.storage.postgres import PostgresStorage


def make_service(config: ServerConfig) -> Service:
    """Keys, caches and limiters; of the streams' places the share of one worker."""
    messaging, session, guilds, sockets = config.messaging, config.session, config.guilds, config.websocket
    signing = config.federation.signing_key
    return Service(
        settings=Settings(
            server_name=config.server_name,
            version=openguild_runtime.__version__,
            replay_window=messaging.replay_window,
            registration_enabled=config.registration.enabled,
            access_ttl_secs=session.access_ttl_secs,
            refresh_ttl_secs=session.refresh_ttl_secs,
            max_guilds_owned=guilds.max_owned_per_user,
            max_guilds_joined=guilds.max_joined_per_user,
            max_channels_per_guild=guilds.max_channels_per_guild,
            max_invites_per_guild=guilds.max_invites_per_guild,
        ),
        tokens=TokenAuthority(config.key_ring()),
        signer=EventSigner(config.server_name, config.federation.key_id, parse_seed(signing.get_secret_value()))
        if signing is not None
        else None,
        user_messages=SlidingWindow(messaging.max_messages_per_user_per_window, messaging.rate_limit_window_secs),
        address_messages=SlidingWindow(messaging.max_messages_per_ip_per_window, messaging.rate_limit_window_secs),
        user_repeats=SlidingWindow(
            messaging.max_messages_per_user_per_window * MAX_REPEATS_PER_MESSAGE, messaging.rate_limit_window_secs
        ),
        address_repeats=SlidingWindow(
            messaging.max_messages_per_ip_per_window * MAX_REPEATS_PER_MESSAGE, messaging.rate_limit_window_secs
        ),
        user_writes=SlidingWindow(guilds.max_writes_per_user_per_window, guilds.write_window_secs),
        address_logins=SlidingWindow(session.max_logins_per_address_per_window, session.login_window_secs),
        account_logins=SlidingWindow(session.max_logins_per_account_per_window, session.login_window_secs),
        address_refreshes=SlidingWindow(session.max_refreshes_per_address_per_window, session.login_window_secs),
        account_refreshes=SlidingWindow(session.max_refreshes_per_account_per_window, session.login_window_secs),
        sockets=ConnectionLimiter(
            -(-sockets.max_connections // config.workers),
            sockets.max_connections_per_user,
            sockets.max_connections_per_address,
        ),
    )


def make_storage(config: ServerConfig, tasks: TaskGroup) -> Storage:
    """Memory, or PostgreSQL; nothing is connected yet."""
    if config.storage == "memory" or config.database_url is None:
        return MemoryStorage()
    return PostgresStorage(
        config.database_url.get_secret_value(),
        tasks,
        pool_size=config.database.pool_size,
        statement_timeout_secs=config.database.statement_timeout_secs,
        statement_cache_size=config.database.statement_cache_size,
        committers=COMMITTERS if config.workers == 1 else 1,  # of siblings the batches overlap already
    )


def make_bus(config: ServerConfig, metrics: Metrics, tasks: TaskGroup) -> Bus:
    """NATS, or a bus that ends in this process; nothing is connected yet."""
    if config.nats.url is None:
        return LocalBus()
    return NatsBus(
        config.nats.url.get_secret_value(),
        config.server_name,
        metrics,
        tasks,
        credentials_file=str(config.nats.credentials_file) if config.nats.credentials_file is not None else None,
        ca_file=str(config.nats.ca_file) if config.nats.ca_file is not None else None,
    )


def make_tracing(config: ServerConfig) -> Tracing | None:
    """None where no collector is configured. Raises ConfigError where one is and OpenTelemetry is not installed."""
    if config.tracing.otlp_endpoint is None:
        return None
    return Tracing(config.tracing.otlp_endpoint, openguild_runtime.__version__, config.server_name)


def make_limits(config: ServerConfig) -> Limits:
    """The bounds of one connection as configured."""
    return Limits(
        head_timeout_secs=config.http.head_timeout_secs,
        body_timeout_secs=config.http.body_timeout_secs,
        request_timeout_secs=config.http.request_timeout_secs,
        idle_timeout_secs=config.http.idle_timeout_secs,
        max_frames_per_minute=config.websocket.max_frames_per_minute,
        max_message_bytes=config.websocket.max_message_bytes,
        ping_interval_secs=config.websocket.ping_interval_secs,
        write_timeout_secs=config.websocket.write_timeout_secs,
    )
