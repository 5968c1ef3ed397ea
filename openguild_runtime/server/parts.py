"""What the configuration chooses: the core's service and the store of one replica."""

from __future__ import annotations

from anyio.abc import TaskGroup

import openguild_runtime
from openguild_proto.canonical.keys import EventSigner, parse_seed
from openguild_proto.limits import Limits
from openguild_proto.memory import MemoryTables
from openguild_proto.operations.context import Service
from openguild_proto.schemas.log_writer import LogWriter
from openguild_proto.sessions.tokens import TokenAuthority
from openguild_runtime.config.pool_shares import COMMITTERS
from openguild_runtime.config.server_config import ServerConfig
from openguild_runtime.observability.tracing import Tracing
from openguild_runtime.storage.base import Storage
from openguild_runtime.storage.memory import MemoryStorage
from openguild_runtime.storage.postgres import PostgresStorage


def make_service(config: ServerConfig) -> Service:
    """Keys, caches and limiters; of the streams' places the share of one worker."""
    return Service.create(
        config.settings(openguild_runtime.__version__),
        TokenAuthority(config.key_ring()),
        signer=make_signer(config),
        workers=config.workers,
    )


def make_signer(config: ServerConfig) -> EventSigner | None:
    """Sign events with the configured key; None: without one they are not signed."""
    federation, signing = config.federation, config.federation.signing_key
    if signing is None:
        return None
    return EventSigner(config.server_name, federation.key_id, parse_seed(signing.get_secret_value()))


def make_writer(config: ServerConfig) -> LogWriter:
    """Write the events of guilds' and users' logs in the name of this server."""
    return LogWriter(config.server_name, make_signer(config))


def make_storage(config: ServerConfig, tasks: TaskGroup) -> Storage:
    """Memory, or PostgreSQL; nothing is connected yet."""
    if config.storage == "memory" or config.database_url is None:
        return MemoryStorage(MemoryTables(make_writer(config)))
    return PostgresStorage(
        config.database_url.get_secret_value(),
        tasks,
        pool_size=config.database.pool_size,
        statement_timeout_secs=config.database.statement_timeout_secs,
        statement_cache_size=config.database.statement_cache_size,
        committers=COMMITTERS if config.workers == 1 else 1,  # of siblings the batches overlap already
        writer=make_writer(config),
    )


def make_tracing(config: ServerConfig) -> Tracing | None:
    """None where no collector is configured. Raises ConfigError where one is and OpenTelemetry is not installed."""
    if config.tracing.otlp_endpoint is None:
        return None
    return Tracing(config.tracing.otlp_endpoint, openguild_runtime.__version__, config.server_name)


def make_limits(config: ServerConfig) -> Limits:
    """The bounds of one connection as configured."""
    return Limits.of(config.http, config.websocket)
