"""Builds the parts of a replica that depend on the configuration."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from functools import partial

from anyio.abc import TaskGroup

import openguild_runtime
from openguild_proto.canonical.keys import EventSigner
from openguild_proto.delivery.deliveries import Deliveries
from openguild_proto.effects.federation import AskPeer, PeerAnswer
from openguild_proto.federation.policy import Mode
from openguild_proto.limits import Limits
from openguild_proto.memory import MemoryTables
from openguild_proto.operations.context import Service
from openguild_proto.policy.response_times import ResponseTimes
from openguild_proto.schemas.log_writer import LogWriter
from openguild_proto.sessions.tokens import TokenAuthority
from openguild_runtime.bus.base import Bus
from openguild_runtime.config.federation import make_signers
from openguild_runtime.config.pool_shares import COMMITTERS
from openguild_runtime.config.server_config import ServerConfig
from openguild_runtime.federation.connections import PeerConnections
from openguild_runtime.federation.delivering import DeliveryRunner
from openguild_runtime.federation.dialer import Dialer, tls_context
from openguild_runtime.observability.tracing import Tracing
from openguild_runtime.storage.base import Storage
from openguild_runtime.storage.memory import MemoryStorage
from openguild_runtime.storage.postgres import PostgresStorage
from openguild_runtime.system.clocks_and_entropy import ClocksAndEntropy


def make_service(config: ServerConfig) -> Service:
    """Return the keys, caches and limiters of one worker. Its limit of streams is its share of the server's."""
    return Service.create(
        config.settings(openguild_runtime.__version__),
        TokenAuthority(config.key_ring()),
        signer=make_signer(config),
        retired_signers=make_signers(config.federation, config.server_name)[1:],
        workers=config.workers,
    )


def make_signer(config: ServerConfig) -> EventSigner | None:
    """Return the signer of events with the first configured key, or None, with which events are not signed."""
    return next(iter(make_signers(config.federation, config.server_name)), None)


def make_writer(config: ServerConfig) -> LogWriter:
    """Return the writer of events in guild and user logs, in the name of this server."""
    return LogWriter(config.server_name, make_signer(config))


def make_storage(config: ServerConfig, tasks: TaskGroup) -> Storage:
    """Return the memory store or the PostgreSQL store, not yet connected."""
    if config.storage == "memory" or config.database_url is None:
        return MemoryStorage(MemoryTables(make_writer(config)))
    return PostgresStorage(
        config.database_url.get_secret_value(),
        tasks,
        pool_size=config.database.pool_size,
        statement_timeout_secs=config.database.statement_timeout_secs,
        statement_cache_size=config.database.statement_cache_size,
        committers=COMMITTERS if config.workers == 1 else 1,  # the batches of several workers overlap already
        writer=make_writer(config),
        standby_urls=[url.get_secret_value() for url in config.database.replica_urls],
        standby_wait_secs=config.database.replica_wait_secs,
    )


def make_connections(
    config: ServerConfig, clock: Callable[[], float], response_times: ResponseTimes
) -> PeerConnections:
    """Return the pool of connections to other servers, none of them open yet."""
    federation = config.federation
    tls = partial(tls_context, federation.ca_file)
    return PeerConnections(Dialer(tls, allow_private=federation.allow_private_addresses), clock, response_times)


def make_deliveries(
    service: Service,
    storage: Storage,
    ask: Callable[[AskPeer], Awaitable[PeerAnswer]],
    bus: Bus,
    tasks: TaskGroup,
    sources: ClocksAndEntropy,
    *,
    holder: str,
) -> DeliveryRunner:
    """Return the runner of deliveries to other servers. `holder` identifies this process in its leases."""
    deliveries = Deliveries(holder, service.signer, random.random, service.response_times)

    def is_on() -> bool:
        return service.settings.federation.mode is not Mode.OFF

    return DeliveryRunner(deliveries, storage=storage, ask=ask, bus=bus, tasks=tasks, sources=sources, is_on=is_on)


def make_tracing(config: ServerConfig) -> Tracing | None:
    """Return the exporter of traces, or None if no collector is configured. Raises ConfigError if OpenTelemetry is missing."""
    if config.tracing.otlp_endpoint is None:
        return None
    return Tracing(config.tracing.otlp_endpoint, openguild_runtime.__version__, config.server_name)


def make_limits(config: ServerConfig) -> Limits:
    """Return the configured limits of one connection."""
    return Limits.of(config.http, config.websocket)
