"""Open files: bounds the connections by the limit of open files, and recovers when descriptors run out.

The process's own descriptors are reserved first. A share of the connections is reserved for HTTP, so that `/live` and
the metrics respond however many streams are open. If descriptors run out while the server runs (the limit was lowered,
or other programs use up the system's), idle HTTP connections are closed, and a few spare descriptors let new ones in.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from contextlib import suppress

import anyio
import structlog

from openguild_proto.limits import MIN_CONNECTIONS, SPARE_DESCRIPTORS
from openguild_proto.policy.descriptors import MANY_DESCRIPTORS, DescriptorBudget, limits_to_try
from openguild_proto.policy.log_throttle import LogThrottle
from openguild_proto.policy.quotas import StreamLimiter
from openguild_runtime.config.layers import ConfigError
from openguild_runtime.config.server_config import ServerConfig
from openguild_runtime.net.connection_server import ConnectionServer
from openguild_runtime.observability.metrics import Metrics

# the loop, logs, listeners, NATS, a private PostgreSQL and NATS (13 to 24), and short-lived files
OWN = 32
SUPERVISOR = 32  # for a supervisor, which needs three more for each worker
SCRAPES = 64  # connections at once, on the metrics' own listener
LEAST_SCRAPES = 8  # descriptors reserved for them
MIN_EMBEDDED = 256  # for a private PostgreSQL and NATS
SHED_AT_ONCE = 16  # idle connections closed each time descriptors run out
LOOK_SECS = 2.0
TELL_SECS = 10.0  # between two log lines

log = structlog.get_logger("openguild.descriptors")


def _limits() -> tuple[int | None, int | None]:
    """Return the soft and the hard limit of open files; None means unlimited."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return (
        None if soft == resource.RLIM_INFINITY else soft,
        None if hard == resource.RLIM_INFINITY else hard,
    )


def raise_limit() -> int:
    """Raise the soft limit of open files as far as the system allows, and return the limit in force."""
    soft, hard = _limits()
    for limit in limits_to_try(soft, hard):
        with suppress(OSError, ValueError):  # refused
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, resource.RLIM_INFINITY if hard is None else hard))
            return limit
    return MANY_DESCRIPTORS if soft is None else soft


def _set_aside(config: ServerConfig) -> int:
    pool = 0 if config.storage == "memory" else config.database.pool_size
    scrapes = 0 if config.metrics.bind_addr is None else LEAST_SCRAPES
    return OWN + pool + scrapes


def require_descriptors(config: ServerConfig) -> None:
    """Raise ConfigError unless the hard limit of open files is high enough to serve."""
    limit = _limits()[1]
    needed = _set_aside(config) + MIN_CONNECTIONS
    if config.workers > 1:
        needed = max(needed, SUPERVISOR + 3 * config.workers)
    if config.embedded:
        needed = max(needed, MIN_EMBEDDED)
    if limit is not None and limit < needed:
        raise ConfigError(
            f"open files: the limit is {limit}, and at least {needed} are needed, plus one for each connection: raise it "
            "(`ulimit -n 65536`, LimitNOFILE= of systemd, --ulimit nofile= of a container), or lower database.pool_size"
        )


def make_budget(config: ServerConfig, limit: int, max_streams: int) -> DescriptorBudget:
    """Return the budget of a process with `limit` open files; `max_streams` is its share of the configured streams."""
    return DescriptorBudget(limit, _set_aside(config), max_streams, config.websocket.max_connections)


class Descriptors:
    """Applies a budget to the connections of `connection_server` and the streams of `sockets`, and adapts it to the limit."""

    def __init__(
        self,
        budget: DescriptorBudget,
        connection_server: ConnectionServer,
        sockets: StreamLimiter,
        metrics: Metrics,
        clock: Callable[[], float],
    ) -> None:
        self._budget = budget
        self._connection_server = connection_server
        self._sockets = sockets
        self._metrics = metrics
        self._clock = clock
        self._spares: list[int] = []
        self._log_throttle = LogThrottle(TELL_SECS)
        wanted = sockets.max_total
        self._apply()
        if sockets.max_total < wanted:
            log.warning(
                "the limit of open files (ulimit -n) leaves room for fewer streams than websocket.max_connections; raise it",
                limit=budget.limit, streams=sockets.max_total, connections=connection_server.admission.max_connections,
            )  # fmt: skip

    def ran_out(self, failure: OSError) -> None:
        """Close idle connections and lower the bound of connections, after `accept` failed for want of descriptors."""
        now, connections = self._clock(), len(self._connection_server.transports)
        self._metrics.accept_failed()
        self._budget.ran_out(connections, now)
        self._apply()
        if self._spares:
            os.close(self._spares.pop())
        for _ in range(SHED_AT_ONCE):
            if not self._connection_server.shed():
                break
        if self._log_throttle.due("accept", now) is not None:
            log.error(
                "cannot accept connections: out of descriptors or memory; raise the limit of open files, or look for what "
                "takes the system's",
                reason=(failure.strerror or "").lower(), limit=_limits()[0], connections=connections,
            )  # fmt: skip

    async def watch(self) -> None:
        """Follow changes of the limit, refill the spares, and raise the bound once descriptors can be opened; until cancelled."""
        try:
            while True:
                soft = _limits()[0]
                if soft is not None and soft != self._budget.limit:
                    log.warning("the limit of open files was changed", limit=soft, before=self._budget.limit)
                    self._budget.limit_changed(soft)
                if self._refilled():
                    self._budget.opened(self._clock())
                self._apply()
                await anyio.sleep(LOOK_SECS)
        finally:
            for spare in self._spares:
                os.close(spare)

    def _apply(self) -> None:
        self._connection_server.admission.max_connections = self._budget.max_connections
        self._sockets.max_total = self._budget.streams

    def _refilled(self) -> bool:
        with suppress(OSError):
            while len(self._spares) < SPARE_DESCRIPTORS:
                self._spares.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        return len(self._spares) == SPARE_DESCRIPTORS
